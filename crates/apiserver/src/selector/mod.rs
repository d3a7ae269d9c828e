//! Label and field selectors of list, watch and deletecollection requests.

mod field;
mod label;

use crate::Status;
use crate::kinds::KindSpec;
use crate::storage::Object;

use field::FieldSelector;
pub(crate) use label::LabelSelector;

/// Which objects a request is about. The default is all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selector {
    /// Parses the query parameters `labelSelector` and `fieldSelector`.
    pub(crate) fn parse(spec: &KindSpec, labels: &str, fields: &str) -> Result<Self, Status> {
        Ok(Self {
            labels: LabelSelector::parse(labels).map_err(Status::bad_request)?,
            fields: FieldSelector::parse(spec, fields).map_err(Status::bad_request)?,
        })
    }

    /// Also only the object of this name.
    #[must_use]
    pub(crate) fn and_name(mut self, name: &str) -> Self {
        self.fields.push_name(name);
        self
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.labels.matches(&object.value["metadata"]["labels"])
            && self.fields.matches(&object.value)
    }
}
