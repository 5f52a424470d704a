//! Python's packages of tests, from PyPI, in `target/python`: a folder each.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tracer_ebpf_build::workspace;

use crate::shell::say;
use crate::wheel::Wheel;

/// What receives in tests what is pushed: OpenTelemetry's messages and server as its project
/// generates them, and what they need.
const WHEELS: [Wheel; 5] = [
    Wheel {
        package: "grpcio",
        version: "1.85.3",
        sha256: "f2948333a1f462c0e559b5ea436655ed36822fa448f5713d6de2d483bed6e03f",
    },
    Wheel {
        package: "opentelemetry-proto",
        version: "1.45.2",
        sha256: "03a7ca1b43f89fd5b965d5975902bb2515c0c86e2428b456836e9a6149c6235a",
    },
    Wheel {
        package: "protobuf",
        version: "7.36.2",
        sha256: "89f23aa53c24553a2416fd4fd1ec06f74fa42b14b546d8883128813f775bbfd2",
    },
    Wheel {
        package: "typing_extensions",
        version: "4.16.0",
        sha256: "481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8",
    },
    // The schemas of Kubernetes' objects.
    Wheel {
        package: "kubernetes-validate",
        version: "1.37.0",
        sha256: "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
    },
];

/// Fetches those that are not there.
///
/// # Errors
/// One cannot be fetched, or is another than we pinned.
pub(crate) fn ensure() -> Result<()> {
    for wheel in &WHEELS {
        let folder = folder(wheel);
        let stamp = folder.with_extension("stamp");
        if fs::read_to_string(&stamp).is_ok_and(|of| of == wheel.sha256) {
            continue;
        }
        say(format_args!("{} {}: once", wheel.package, wheel.version));
        let folder = wheel.unpack("*", &folder)?;
        fs::write(&stamp, wheel.sha256)
            .with_context(|| format!("cannot note that {} is whole", folder.display()))?;
    }
    Ok(())
}

fn folder(wheel: &Wheel) -> PathBuf {
    workspace().join("target/python").join(wheel.package)
}
