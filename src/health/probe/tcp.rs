//! A probe that connects: whoever accepts is up.

use monoio::net::TcpStream;

use crate::policy::health::ProbeFault;

/// A connection was made, and that is all that is asked. It is closed without a word.
pub(super) fn judge(stream: TcpStream) -> Result<(), ProbeFault> {
    drop(stream);
    Ok(())
}
