//! The cluster's names in a file, for a server that starts while nobody can
//! tell them.
//!
//! A line of JSON for each service, after one that says of what. Written to a
//! new file that then takes the old one's place.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use ripstop_model::ObjectKey;
use ripstop_plan::ServiceNames;
use serde::{Deserialize, Serialize};

use crate::Zone;

/// Says that a file is of this kind, and for which domain.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    names: u32,
    domain: String,
    services: usize,
}

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Line<K, N> {
    service: K,
    names: N,
}

impl Zone {
    /// Writes all names of services.
    ///
    /// # Errors
    /// If the file cannot be written; the one that was there stays.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut file = BufWriter::new(File::create(&new)?);
        let keys = self.table().keys();
        let head = Head {
            names: VERSION,
            domain: self.config.domain.clone(),
            services: keys.len(),
        };
        serde_json::to_writer(&mut file, &head)?;
        // Looked up one by one: nobody waits for the disk to read or change a name.
        let mut text = Vec::new();
        for key in keys {
            text.clear();
            text.push(b'\n');
            if let Some((_, names)) = self.table().get(&key) {
                let service = crate::table::object(&key);
                serde_json::to_writer(&mut text, &Line { service, names })?;
            }
            file.write_all(&text)?;
        }
        file.into_inner()
            .map_err(|error| error.into_error())?
            .flush()?;
        fs::rename(&new, path)
    }

    /// Takes over the names in a file. False if there is none of this domain.
    ///
    /// # Errors
    /// If a file is there and cannot be read to its end; its names are not taken
    /// then.
    pub fn restore(&self, path: &Path) -> io::Result<bool> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => BufReader::new(file?),
        };
        let mut lines = file.lines();
        let Some(head) = lines.next() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let head: Head = serde_json::from_str(&head?)?;
        if head.names != VERSION || head.domain != self.config.domain {
            return Ok(false);
        }
        let mut all = Vec::with_capacity(head.services);
        for line in lines {
            match line?.as_str() {
                // Removed while the file was written.
                "" => {}
                line => {
                    let line: Line<ObjectKey, ServiceNames> = serde_json::from_str(line)?;
                    all.push((line.service, Some(line.names)));
                }
            }
        }
        self.update(all);
        Ok(true)
    }
}
