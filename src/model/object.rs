//! From a Kubernetes object to the images that it names, with JSON pointers. Pure over `serde_json::Value`.
//!
//! Not typed by `k8s-openapi`: parsing into a `Value` keeps unknown fields, and gives the pointers that a JSON patch
//! needs. Every image field of every kind with a pod template is read (design §6): containers, init containers,
//! ephemeral containers and image volumes. A kind that is not in the table is not ours; what it makes are pods, which
//! are.

use std::fmt;

use serde_json::{Map, Value};

use super::limits;

/// The label that says in which environment an object runs; without it, its namespace is the environment.
pub const ENVIRONMENT_LABEL: &str = "countersign.dev/environment";
/// The labels that name the service, the better one first.
pub const SERVICE_LABELS: [&str; 2] = ["app.kubernetes.io/name", "app"];
/// The annotation that the kubelet puts on the image of a static pod in the API server.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Every kind whose images are judged, with the pointer to its pod spec.
const POD_SPECS: [(&str, &str, &str); 10] = [
    ("", "Pod", "/spec"),
    ("", "ReplicationController", "/spec/template/spec"),
    ("", "PodTemplate", "/template/spec"),
    ("apps", "Deployment", "/spec/template/spec"),
    ("apps", "ReplicaSet", "/spec/template/spec"),
    ("apps", "StatefulSet", "/spec/template/spec"),
    ("apps", "DaemonSet", "/spec/template/spec"),
    ("batch", "Job", "/spec/template/spec"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template/spec"),
    // What `kubectl debug` sends through pods/ephemeralcontainers is a whole Pod since Kubernetes 1.23.
    ("", "EphemeralContainers", ""),
];

/// An API group and kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: String,
    /// The kind, as in `Deployment`.
    pub kind: String,
}

impl Kind {
    /// The kind that a manifest names by `apiVersion` and `kind`.
    pub fn of(object: &Value) -> Option<Self> {
        let version = object.get("apiVersion")?.as_str()?;
        let group = version.split_once('/').map_or("", |(group, _)| group);
        Some(Self { group: group.to_owned(), kind: object.get("kind")?.as_str()?.to_owned() })
    }

    /// Where the pod spec stands in an object of this kind; `None` when the kind is not ours.
    pub fn pod_spec(&self) -> Option<&'static str> {
        POD_SPECS.iter().find(|(group, kind, _)| self.is(group, kind)).map(|(_, _, pointer)| *pointer)
    }

    /// Whether it is this kind of this group.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

/// One place in an object that names an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUse {
    /// The JSON pointer to the string.
    pub pointer: String,
    /// The name of the container or volume.
    pub user: String,
    /// The image as it is written there.
    pub image: String,
}

/// Why the images of an object could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// A field has a type that the API does not allow.
    #[error("{pointer} must be {expected}")]
    Type {
        /// Where.
        pointer: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// More images than one object may name.
    #[error("the object names more than {} images", limits::IMAGES)]
    TooMany,
}

/// The images that an object of `kind` names, in the order of the pod spec. Empty images (allowed in templates, for
/// a later hand to fill in) are left out. A kind that is not ours names none.
pub fn images(kind: &Kind, object: &Value) -> Result<Vec<ImageUse>, ObjectError> {
    let mut found = Vec::new();
    let Some(root) = kind.pod_spec() else { return Ok(found) };
    let Some(spec) = object.pointer(root).filter(|spec| !spec.is_null()) else { return Ok(found) };
    let spec = spec.as_object().ok_or_else(|| wrong(root, "an object"))?;
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for (pointer, item) in items(spec, root, field)? {
            take(&mut found, format!("{pointer}/image"), item, item.get("image"))?;
        }
    }
    for (pointer, item) in items(spec, root, "volumes")? {
        let Some(image) = item.get("image").filter(|image| !image.is_null()) else { continue };
        let image = image.as_object().ok_or_else(|| wrong(&format!("{pointer}/image"), "an object"))?;
        take(&mut found, format!("{pointer}/image/reference"), item, image.get("reference"))?;
    }
    Ok(found)
}

/// An item of a list, with its pointer.
type Item<'a> = (String, &'a Map<String, Value>);

/// The objects of a list field, each with its pointer; none when the field is absent.
fn items<'a>(spec: &'a Map<String, Value>, root: &str, field: &str) -> Result<Vec<Item<'a>>, ObjectError> {
    let here = format!("{root}/{field}");
    let list = match spec.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(list) => list.as_array().ok_or_else(|| wrong(&here, "a list"))?,
    };
    list.iter()
        .enumerate()
        .map(|(index, item)| {
            let pointer = format!("{here}/{index}");
            let item = item.as_object().ok_or_else(|| wrong(&pointer, "an object"))?;
            Ok((pointer, item))
        })
        .collect()
}

fn take(
    found: &mut Vec<ImageUse>,
    pointer: String,
    item: &Map<String, Value>,
    image: Option<&Value>,
) -> Result<(), ObjectError> {
    let image = match image {
        None | Some(Value::Null) => return Ok(()),
        Some(image) => image.as_str().ok_or_else(|| wrong(&pointer, "a string"))?,
    };
    if image.is_empty() {
        return Ok(());
    }
    if found.len() >= limits::IMAGES {
        return Err(ObjectError::TooMany);
    }
    let user = item.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    found.push(ImageUse { pointer, user, image: image.to_owned() });
    Ok(())
}

fn wrong(pointer: &str, expected: &'static str) -> ObjectError {
    ObjectError::Type { pointer: pointer.to_owned(), expected }
}

/// The object's own name, once it has one.
pub fn name(object: &Value) -> Option<&str> {
    text(object, "/metadata/name")
}

/// The namespace that the object itself names.
pub fn namespace(object: &Value) -> Option<&str> {
    text(object, "/metadata/namespace")
}

/// The environment: the label [`ENVIRONMENT_LABEL`], else the namespace.
pub fn environment<'a>(object: &'a Value, namespace: &'a str) -> &'a str {
    entry(object, "labels", ENVIRONMENT_LABEL).unwrap_or(namespace)
}

/// What the service is most likely called: a label, else the controller's name, else the object's own.
///
/// A generated name loses its generated end, so that every pod of one workload answers with the same service.
pub fn service(object: &Value) -> Option<String> {
    let labelled = SERVICE_LABELS.iter().find_map(|label| entry(object, "labels", label));
    let name = labelled.map(str::to_owned).or_else(|| owner(object)).or_else(|| own_name(object))?;
    (!name.is_empty() && name.len() <= limits::NAME).then_some(name)
}

/// The controller's name, without the hash that a Deployment gives its replica sets and the minute that a cron job
/// gives its Jobs.
fn owner(object: &Value) -> Option<String> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner.get("controller") == Some(&Value::Bool(true)))?;
    let name = owner.get("name")?.as_str()?;
    let (stem, end) = name.rsplit_once('-').unwrap_or((name, ""));
    let hash = entry(object, "labels", "pod-template-hash");
    let generated = match owner.get("kind").and_then(Value::as_str) {
        Some("ReplicaSet") => hash == Some(end),
        Some("Job") => end.len() >= 8 && end.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    };
    Some(if generated { stem } else { name }.to_owned())
}

fn own_name(object: &Value) -> Option<String> {
    let generated = text(object, "/metadata/generateName").map(|prefix| prefix.trim_end_matches('-'));
    generated.or_else(|| text(object, "/metadata/name")).map(str::to_owned)
}

/// Whether something else made the object and will make it again.
pub fn is_owned(object: &Value) -> bool {
    object.pointer("/metadata/ownerReferences").and_then(Value::as_array).is_some_and(|owners| !owners.is_empty())
}

/// Whether it is the picture of a static pod, which runs already.
pub fn is_mirror(object: &Value) -> bool {
    entry(object, "annotations", MIRROR_ANNOTATION).is_some()
}

/// An annotation of the object.
pub fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    entry(object, "annotations", name)
}

/// The image that the object is about: its default container's, else its first container's. Side cars and init
/// containers come and go; a service's history is that of its main image.
pub fn main_image<'a>(kind: &Kind, object: &Value, uses: &'a [ImageUse]) -> Option<&'a ImageUse> {
    let root = kind.pod_spec()?;
    let containers = format!("{root}/containers/");
    let template = root.strip_suffix("/spec").and_then(|template| object.pointer(template))?;
    let named = annotation(template, "kubectl.kubernetes.io/default-container");
    let mut mine = uses.iter().filter(|one| one.pointer.starts_with(&containers));
    match named {
        Some(name) => mine.clone().find(|one| one.user == name).or_else(|| mine.next()),
        None => mine.next(),
    }
}

fn entry<'a>(object: &'a Value, map: &str, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get(map)?.get(key)?.as_str().filter(|text| !text.is_empty())
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
}
