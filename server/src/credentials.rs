//! How a command shows to the client ports of nodes who it is: by a certificate, as a user, or by the join token.

use crate::client::{encrypt, log_in, show_token};
use crate::secret::Secret;
use clap::Args;
use coracle::TlsDialer;
use std::path::PathBuf;

/// Where a password is, if no file has it.
pub(crate) const PASSWORD: &str = "CORACLE_PASSWORD";

/// Where the join token is, if no file has it.
const JOIN_TOKEN: &str = "CORACLE_JOIN_TOKEN";

/// What a command shows.
#[derive(Args)]
pub struct Credentials {
    /// The certificate of the authority that the nodes' are signed by: connections to them are encrypted then
    #[arg(long, value_name = "FILE", env = "CORACLE_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// A certificate to show to the nodes, for those who ask for one
    #[arg(long, value_name = "FILE", env = "CORACLE_TLS_CERT", requires = "tls_key", requires = "tls_ca")]
    tls_cert: Option<PathBuf>,
    /// Its key, which nobody else may read
    #[arg(long, value_name = "FILE", env = "CORACLE_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    login: AsUser,
    #[command(flatten)]
    token: JoinToken,
}

/// As which user.
#[derive(Args)]
pub struct AsUser {
    /// The user as whom to ask, where a cluster has users
    #[arg(long = "user", value_name = "NAME", env = "CORACLE_USER")]
    user: Option<String>,
    /// The file with its password; without one it is taken from CORACLE_PASSWORD
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Credentials {
    /// Has every connection of this process show them.
    pub fn apply(&self) -> Result<(), String> {
        self.login.apply()?;
        self.token.load()?;
        let Some(authority) = &self.tls_ca else { return Ok(()) };
        let own = self.tls_cert.as_deref().zip(self.tls_key.as_deref());
        let dialer = TlsDialer::load(authority, own).map_err(|error| error.to_string())?;
        encrypt(false, move || dialer.clone());
        Ok(())
    }

    /// As which user.
    pub(crate) fn login(&self) -> &AsUser {
        &self.login
    }
}

impl AsUser {
    /// Has every connection of this process be this user's, if one is named.
    pub fn apply(&self) -> Result<(), String> {
        let Some(user) = &self.user else { return Ok(()) };
        let password = self.password()?;
        let missing = format!("--user {user}: give its password by --password-file, or in {PASSWORD}");
        log_in(user, &password.ok_or(missing)?);
        Ok(())
    }

    /// The password that is given, whosever it is.
    pub(crate) fn password(&self) -> Result<Option<Secret>, String> {
        given(self.password_file.as_ref(), PASSWORD)
    }

    /// Whether a user is named.
    pub(crate) fn names_a_user(&self) -> bool {
        self.user.is_some()
    }
}

/// What all nodes of a cluster have in common.
#[derive(Args, Default)]
pub struct JoinToken {
    /// What all nodes of the cluster have in common (in the environment: CORACLE_JOIN_TOKEN); others on this computer can see it here
    #[arg(long, value_name = "SECRET", conflicts_with = "join_token_file")]
    join_token: Option<Secret>,
    /// The file that it is in
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
}

impl JoinToken {
    /// The token, if there is one. Every connection of this process shows it from now on.
    pub fn load(&self) -> Result<Option<Secret>, String> {
        let token = match &self.join_token {
            Some(token) => Some(token.clone()),
            None => given(self.join_token_file.as_ref(), JOIN_TOKEN)?,
        };
        token.iter().for_each(show_token);
        Ok(token)
    }

    /// Whether everybody on this computer can see it.
    pub fn is_exposed(&self) -> bool {
        self.join_token.is_some()
    }
}

/// A secret from a file, or else from the environment.
pub(crate) fn given(file: Option<&PathBuf>, variable: &str) -> Result<Option<Secret>, String> {
    match file {
        Some(file) => Secret::from_file(file).map(Some),
        None => Ok(Secret::from_environment(variable)),
    }
}
