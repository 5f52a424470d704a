//! Work that takes longer than others should wait: it is done on a thread beside the one
//! that answers, which inherits that it has no rights.

use anyhow::anyhow;

use super::Refusal;

/// Does it there.
///
/// # Errors
/// Those of the work, and that it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| anyhow!("this answer could not be made: {error}"))?
}
