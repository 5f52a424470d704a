//! Pyroscope's push API: `push.v1.PusherService/Push` of its Connect API, with pprof inside
//! (<https://grafana.com/docs/pyroscope/latest/reference-server-api/>).

use anyhow::Result;
use prost::Message;

use super::client::{Client, Failure};
use super::window::{Window, host};
use crate::serve::gzip;

/// The method, behind the address.
const PUSH: &str = "/push.v1.PusherService/Push";
/// A request of the Connect protocol that is protobuf.
const CONTENT_TYPE: &str = "application/proto";
/// What Pyroscope calls profiles of memory in use.
const NAME: &str = "memory";

#[derive(Clone, PartialEq, Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<Series>,
}

#[derive(Clone, PartialEq, Message)]
struct Series {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Sample {
    /// pprof, compressed by gzip.
    #[prost(bytes = "vec", tag = "1")]
    raw_profile: Vec<u8>,
    /// A UUID.
    #[prost(string, tag = "2")]
    id: String,
}

/// Pushes a window.
///
/// # Errors
/// It did not arrive.
pub async fn push(client: &Client, window: &Window) -> Result<(), Failure> {
    let body = request(window).map_err(|error| Failure::Refused(format!("{error:#}")))?;
    client.post(PUSH, CONTENT_TYPE, body).await?;
    Ok(())
}

fn request(window: &Window) -> Result<Vec<u8>> {
    let raw_profile = gzip::pack(&window.profile.encode_to_vec())?;
    let request = PushRequest {
        series: vec![Series {
            labels: labels(window),
            samples: vec![Sample {
                raw_profile,
                id: uuid(window.id()),
            }],
        }],
    };
    Ok(request.encode_to_vec())
}

fn labels(window: &Window) -> Vec<Label> {
    let mut labels = vec![
        ("__name__", NAME.to_owned()),
        ("service_name", window.service.clone()),
        ("instance", host()),
    ];
    // What holds for some of its processes is no label of the service.
    if let [container] = window.containers.as_slice() {
        let of = [
            ("container", &container.name),
            ("pod", &container.pod),
            ("namespace", &container.namespace),
        ];
        labels.extend(
            of.into_iter()
                .filter_map(|(name, it)| Some((name, it.clone()?))),
        );
    }
    let label = |(name, value): (&str, String)| Label {
        name: name.to_owned(),
        value,
    };
    labels.into_iter().map(label).collect()
}

/// A UUID of our own making (version 8 of RFC 9562).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = u128::from_be_bytes(bytes);
    let digits = format!("{digits:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    parts.map(|part| digits[part].to_owned()).join("-")
}

#[cfg(test)]
mod tests {
    use super::super::window::tests::window;
    use super::*;
    use crate::serve::container::Container;

    #[test]
    fn a_uuid_says_which_kind_it_is() {
        let uuid = uuid([0xff; 16]);
        assert_eq!(uuid, "ffffffff-ffff-8fff-bfff-ffffffffffff");
    }

    #[test]
    fn labels_are_those_of_the_whole_service() {
        let mut window = window();
        let container = Container {
            id: "a".to_owned(),
            pod: Some("p".to_owned()),
            ..Container::default()
        };
        let has_pod = |window: &Window| labels(window).iter().any(|it| it.name == "pod");
        assert!(!has_pod(&window));
        window.containers = vec![container.clone()];
        assert!(has_pod(&window));
        window.containers.push(container);
        assert!(!has_pod(&window));
    }
}
