//! The arguments of `unfreed holders`.

use std::path::PathBuf;

use clap::Args;

use super::args::Format;
use super::table::TableArgs;
use crate::model::RowNumber;

const EXAMPLES: &str = "\
Examples:
  Who holds what process 1234 leaks, while `unfreed record -p 1234` goes on in another terminal?
      sudo unfreed holders -p 1234
  All chains of the first finding, and as JSON:
      sudo unfreed holders -p 1234 --site 1
      sudo unfreed holders -p 1234 --site 1 --json
  A picture, roots on top:
      sudo unfreed holders -p 1234 -o now.holders.svg

Ask as the user who runs `record`: root, under sudo. A run with --growth has no blocks to search for. In `top`
the key h asks, and `serve` searches by itself.";

/// `unfreed holders`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct HoldersArgs {
    /// A process that a run traces
    #[arg(short, long, value_name = "PID",
          value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pid: u32,
    /// The finding or row of this number alone, with all its chains: as the table has it that this verb
    /// prints without. What grows moves, so the answer begins with what it is about
    #[arg(long, value_name = "N")]
    pub site: Option<RowNumber>,
    /// JSON on standard output: the report; with --site the finding or row
    #[arg(long, conflicts_with = "outputs")]
    pub json: bool,
    /// Write the report; the extension tells the format (repeatable, - is standard output)
    #[arg(short, long = "output", value_name = "FILE")]
    pub outputs: Vec<PathBuf>,
    /// Format of outputs whose name does not tell it
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// What the table shows.
    #[command(flatten)]
    pub table: TableArgs,
}
