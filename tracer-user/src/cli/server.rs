//! The arguments of verbs that ask a running `serve`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::args::duration;
use super::output::OutputArgs;
use crate::serve::client::{Client, Place};

/// Whom to ask.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Where `serve` answers; https://HOST:PORT if it does with TLS [default: http://127.0.0.1:7411]
    #[arg(long, value_name = "URL", conflicts_with = "socket")]
    url: Option<Place>,
    /// Believe certificates of this file, or that these signed, and not those of the system (PEM)
    #[arg(long, value_name = "FILE", requires = "url")]
    tls_ca: Option<PathBuf>,
    /// The unix socket at which it listens
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// A file with its token [default: /var/lib/unfreed/token, if that is there; with --socket none,
    /// since it knows who asks]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl ServerArgs {
    /// One who asks there.
    ///
    /// # Errors
    /// The token or the certificates cannot be read.
    pub fn client(&self) -> Result<Client> {
        Client::new(
            self.place(),
            self.token_file.as_deref(),
            self.tls_ca.as_deref(),
        )
    }

    fn place(&self) -> Place {
        match (&self.socket, &self.url) {
            (Some(path), _) => Place::Unix(path.clone()),
            (None, Some(place)) => place.clone(),
            (None, None) => Place::default(),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  What grows in the service nginx, by the `serve` that watches this host?
      sudo unfreed attach --service nginx
  The same as a flamegraph and as a complete report:
      sudo unfreed attach --service nginx -o nginx.svg -o nginx.json
  What came in the five minutes before now, as pprof; who allocated it, if it was looked at closer:
      sudo unfreed attach --service nginx --seconds 300 -o new.pb.gz
      sudo unfreed attach --service nginx --look -o heap.svg
  What there was at the end of a window that is kept (/api/services/nginx/windows has them):
      sudo unfreed attach --service nginx --window 1764147600000 -o then.svg";

/// `unfreed attach`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AttachArgs {
    /// The service, as `serve` calls it
    #[arg(short, long, value_name = "NAME")]
    pub service: String,
    /// What the last closer look has seen allocated, in the place of what page faults tell
    #[arg(long)]
    pub look: bool,
    /// The profile at the end of a window that is kept, milliseconds since 1970 (.svg, .folded or
    /// .pb.gz)
    #[arg(long, value_name = "END", requires = "outputs")]
    pub window: Option<u64>,
    /// The profile of what came in so long a time before (.svg, .folded or .pb.gz)
    #[arg(long, value_name = "TIME", requires = "outputs", value_parser = duration)]
    pub seconds: Option<Duration>,
    /// Whom to ask.
    #[command(flatten)]
    pub server: ServerArgs,
    /// What to write.
    #[command(flatten)]
    pub output: OutputArgs,
}
