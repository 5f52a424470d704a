//! Containers of processes: their ids from control groups, their names from what the kubelet
//! and Docker write for others.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A container's id has so many letters, hexadecimal.
const ID: usize = 64;
/// A name of more bytes is none of Kubernetes' nor of Docker's.
const MAX_NAME: usize = 253;
/// Docker's file on a container is not larger, bytes.
const MAX_FILE: u64 = 1 << 20;

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name, if that is known.
    pub name: Option<String>,
    /// The pod that it is of.
    pub pod: Option<String>,
    /// That one's namespace.
    pub namespace: Option<String>,
    /// That one's id.
    pub pod_id: Option<String>,
}

/// Where names of containers are.
#[derive(Debug)]
pub struct Names {
    /// The kubelet's links to logs: `POD_NAMESPACE_CONTAINER-ID.log`.
    logs: PathBuf,
    /// Docker's folders of containers, by id.
    docker: PathBuf,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            logs: PathBuf::from("/var/log/containers"),
            docker: PathBuf::from("/var/lib/docker/containers"),
        }
    }
}

impl Names {
    /// The container of a control group's path, if it is one's.
    pub fn of_cgroup(&self, path: &str) -> Option<Container> {
        let id = path.rsplit('/').find_map(id_of)?;
        let container = Container {
            id: id.to_owned(),
            pod_id: path.split('/').find_map(pod_of),
            ..Container::default()
        };
        Some(self.of_kubelet(&container).unwrap_or_else(|| Container {
            name: of_docker(&self.docker.join(id).join("config.v2.json")),
            ..container
        }))
    }

    fn of_kubelet(&self, container: &Container) -> Option<Container> {
        let end = format!("-{}.log", container.id);
        for link in fs::read_dir(&self.logs).ok()?.flatten() {
            let file = link.file_name();
            let Some(names) = file.to_str().and_then(|name| name.strip_suffix(&end)) else {
                continue;
            };
            // No name of Kubernetes has a `_`.
            let [pod, namespace, name] = names.split('_').collect::<Vec<_>>()[..] else {
                continue;
            };
            return Some(Container {
                name: Some(name.to_owned()),
                pod: Some(pod.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..container.clone()
            });
        }
        None
    }
}

/// The id in a part of a path: `ID`, `RUNTIME-ID.scope`, or, of some runtimes, `PREFIX:ID`.
fn id_of(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let start = part.rfind(['-', ':']).map_or(0, |at| at + 1);
    let id = &part[start..];
    let is_id = id.len() == ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then_some(id)
}

/// The pod's id in a part of a path: `podID`, or `kubepods-…-podID.slice` with `_` for `-`.
fn pod_of(part: &str) -> Option<String> {
    let part = part.split('.').next().unwrap_or(part);
    let id = match part.strip_prefix("pod") {
        Some(id) => id,
        None => part.strip_prefix("kubepods")?.rsplit_once("-pod")?.1,
    };
    Some(id.replace('_', "-")).filter(|id| !id.is_empty() && id.len() <= MAX_NAME)
}

fn of_docker(file: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "Name")]
        name: String,
    }
    let mut text = Vec::new();
    let file = File::open(file).ok()?;
    file.take(MAX_FILE).read_to_end(&mut text).ok()?;
    let config: Config = serde_json::from_slice(&text).ok()?;
    let name = config.name.trim_start_matches('/').to_owned();
    Some(name).filter(|name| !name.is_empty() && name.len() <= MAX_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> String {
        "0123456789abcdef".repeat(4)
    }

    fn names() -> (tempfile::TempDir, Names) {
        let folder = tempfile::tempdir().unwrap();
        let names = Names {
            logs: folder.path().join("logs"),
            docker: folder.path().join("docker"),
        };
        (folder, names)
    }

    #[test]
    fn ids_are_found_whichever_runtime_made_the_group() {
        let (_folder, names) = names();
        let id = id();
        for (path, pod) in [
            (format!("/docker/{id}"), None),
            (format!("/system.slice/docker-{id}.scope"), None),
            (format!("/machine.slice/libpod-{id}.scope/container"), None),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab_cd.slice/cri-containerd-{id}.scope"
                ),
                Some("ab-cd"),
            ),
            (format!("/kubepods/besteffort/podab-cd/{id}"), Some("ab-cd")),
            (
                format!("/kubepods-podab_cd.slice:cri-containerd:{id}"),
                Some("ab-cd"),
            ),
        ] {
            let found = names.of_cgroup(&path).unwrap();
            assert_eq!(found.id, id, "{path}");
            assert_eq!(found.pod_id.as_deref(), pod, "{path}");
        }
        for path in ["/", "", "/system.slice/nginx.service", "/docker/0123"] {
            assert_eq!(names.of_cgroup(path), None, "{path}");
        }
    }

    #[test]
    fn names_are_the_kubelets() {
        let (_folder, names) = names();
        let id = id();
        fs::create_dir(&names.logs).unwrap();
        fs::write(names.logs.join("other_a_b-00.log"), "").unwrap();
        fs::write(names.logs.join(format!("odd-{id}.log")), "").unwrap();
        let link = format!("web-5d-x_shop_nginx-main-{id}.log");
        fs::write(names.logs.join(link), "").unwrap();
        let path = format!("/kubepods/podab-cd/{id}");
        let found = names.of_cgroup(&path).unwrap();
        let wanted = Container {
            id,
            name: Some("nginx-main".to_owned()),
            pod: Some("web-5d-x".to_owned()),
            namespace: Some("shop".to_owned()),
            pod_id: Some("ab-cd".to_owned()),
        };
        assert_eq!(found, wanted);
    }

    #[test]
    fn names_are_dockers() {
        let (_folder, names) = names();
        let folder = names.docker.join(id());
        fs::create_dir_all(&folder).unwrap();
        let named = |text: &str| {
            fs::write(folder.join("config.v2.json"), text).unwrap();
            let path = format!("/docker/{}", id());
            names.of_cgroup(&path).unwrap().name
        };
        assert_eq!(named("{\"Name\":\"/db\",\"ID\":1}").as_deref(), Some("db"));
        assert_eq!(named("{"), None);
    }
}
