/// Which pod a container is of: the Kubernetes part of `CNI_ARGS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodArgs {
    pub namespace: String,
    pub name: String,
    pub uid: Option<String>,
}

impl PodArgs {
    /// Reads `IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=name;K8S_POD_UID=uid`.
    /// Words that are not ours are left to others; a runtime without Kubernetes gives
    /// none, and the names are empty then.
    pub fn parse(args: &str) -> Self {
        let mut found = Self::default();
        for (key, value) in args.split(';').filter_map(|word| word.split_once('=')) {
            match key {
                "K8S_POD_NAMESPACE" => value.clone_into(&mut found.namespace),
                "K8S_POD_NAME" => value.clone_into(&mut found.name),
                "K8S_POD_UID" => found.uid = (!value.is_empty()).then(|| value.to_owned()),
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_found_among_other_words() {
        let cases = [
            (
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_UID=7f",
                "shop",
                "cart-0",
                Some("7f"),
            ),
            ("K8S_POD_NAME=a=b;K8S_POD_UID=", "", "a=b", None),
            (";;x;K8S_POD_NAME", "", "", None),
            ("", "", "", None),
        ];
        for (args, namespace, name, uid) in cases {
            let expected = PodArgs {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: uid.map(str::to_owned),
            };
            assert_eq!(PodArgs::parse(args), expected, "{args}");
        }
    }
}
