//! Why there is no answer, in words that say what to do next and hold nothing of a credential.

use std::time::Duration;

use reqwest::StatusCode;

use super::{
    body::Unread,
    health::{HANGS, PAUSE},
    lane::PLACES,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Its certificates.
    #[error(
        "its certificates cannot be used: {0}; put PEM into the Secrets and ConfigMaps of spec.prometheus.tls"
    )]
    Certificates(String),
    /// Too many servers.
    #[error("the rollouts of this namespace ask too many servers at once; let them share one")]
    TooManyServers,
    /// Too many questions.
    #[error("{PLACES} questions wait for this server already; it is too slow for them")]
    Crowded,
    /// It hangs.
    #[error("it gave no answer in time {HANGS} times in a row; it is asked again every {} s", PAUSE.as_secs())]
    Hanging,
    /// Too late.
    #[error("no answer within {0:?}; look after the server, or raise spec.prometheus.timeout")]
    TimedOut(Duration),
    /// No connection, or a broken one.
    #[error("{0}; check spec.prometheus.url and that the server runs")]
    Connection(String),
    /// A redirect.
    #[error("it answered {0}, and redirects are not followed; write the address that it leads to")]
    Redirect(StatusCode),
    /// Credentials.
    #[error("it answered {0}; check spec.prometheus.auth and the Secret that it names")]
    Denied(StatusCode),
    /// Another status.
    #[error("it answered {0}: {1}")]
    Status(StatusCode, String),
    /// Too long.
    #[error("its answer is longer than {0} bytes; use narrower selectors")]
    TooLong(usize),
    /// No memory for it.
    #[error("its answer is large, and too many large ones arrive at this moment; use narrower selectors")]
    NoRoom,
    /// Not an answer.
    #[error(transparent)]
    Unread(#[from] Unread),
}

impl Failure {
    /// Whether a question for less might be answered.
    pub const fn may_be_size(&self) -> bool {
        match self {
            Self::TimedOut(_)
            | Self::Status(..)
            | Self::TooLong(_)
            | Self::NoRoom
            | Self::Unread(Unread::Refused(_) | Unread::Text(_) | Unread::Json(_)) => true,
            Self::Certificates(_)
            | Self::TooManyServers
            | Self::Crowded
            | Self::Hanging
            | Self::Connection(_)
            | Self::Redirect(_)
            | Self::Denied(_)
            | Self::Unread(
                Unread::Warned(_) | Unread::NoData | Unread::Type { .. } | Unread::Histogram | Unread::Order,
            ) => false,
        }
    }

    /// A connection that could not be made, or broke.
    pub fn connection(error: reqwest::Error) -> Self {
        Self::Connection(said(&error.without_url()))
    }

    /// Certificates that nobody can use.
    pub fn certificates(error: &reqwest::Error) -> Self {
        Self::Certificates(said(error))
    }
}

/// An error with its causes, because reqwest's own words name none.
fn said(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}
