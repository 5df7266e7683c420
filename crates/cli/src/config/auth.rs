//! `[auth]`: by what callers of the HTTP API are known.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use super::mask::mask;
use super::schema::{ConfigOption, Kind, Refusal};

/// By what callers are known. With nothing of it, everybody on this machine may do everything, and nobody else can connect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AuthConfig {
    /// By keys that `recache token create` makes. Default false.
    pub(crate) api_keys: bool,
    /// By tokens that somebody else signed.
    pub(crate) jwt: JwtConfig,
}

impl AuthConfig {
    /// Whether callers must be known.
    pub(crate) fn is_on(&self) -> bool {
        self.api_keys || self.jwt.is_given()
    }
}

/// How signed tokens are judged. Off while nothing of it is given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct JwtConfig {
    /// Who signs.
    pub(crate) issuer: String,
    /// For whom they sign: this server.
    pub(crate) audience: String,
    /// Algorithms that are accepted, all of one family.
    pub(crate) algorithms: Vec<String>,
    /// The key of HS256, HS384 and HS512.
    pub(crate) secret: Secret,
    /// A public key, PEM.
    pub(crate) public_key_file: Option<PathBuf>,
    /// A JSON Web Key Set.
    pub(crate) keys_file: Option<PathBuf>,
    /// Where the issuer publishes its JSON Web Key Set.
    pub(crate) keys_url: String,
}

impl JwtConfig {
    /// Whether anything of it is given.
    pub(crate) fn is_given(&self) -> bool {
        *self != Self::default()
    }
}

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

fn file(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn shown(path: Option<&PathBuf>) -> Value {
    Value::from(path.map(|path| path.display().to_string()).unwrap_or_default())
}

pub(super) const OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        path: "auth.api_keys",
        meaning: "callers are known by keys that `recache token create` makes",
        kind: Kind::Boolean { write: |config, _, on| config.auth.api_keys = on },
        read: |config, _| Value::from(config.auth.api_keys),
    },
    ConfigOption {
        path: "auth.jwt.issuer",
        meaning: "callers are known by tokens (JWT) that this issuer signs",
        kind: Kind::Text {
            form: "the `iss` of tokens",
            write: |config, _, text| {
                text.clone_into(&mut config.auth.jwt.issuer);
                Ok(())
            },
        },
        read: |config, _| Value::from(config.auth.jwt.issuer.clone()),
    },
    ConfigOption {
        path: "auth.jwt.audience",
        meaning: "for whom tokens must be made",
        kind: Kind::Text {
            form: "the `aud` of tokens",
            write: |config, _, text| {
                text.clone_into(&mut config.auth.jwt.audience);
                Ok(())
            },
        },
        read: |config, _| Value::from(config.auth.jwt.audience.clone()),
    },
    ConfigOption {
        path: "auth.jwt.algorithms",
        meaning: "algorithms that are accepted, all of one family: HS…, RS… and PS…, ES…, or EdDSA",
        kind: Kind::Text {
            form: "names with commas between them: RS256,RS512",
            write: |config, _, text| {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                config.auth.jwt.algorithms = names.map(str::to_owned).collect();
                Ok(())
            },
        },
        read: |config, _| Value::from(config.auth.jwt.algorithms.join(",")),
    },
    ConfigOption {
        path: "auth.jwt.secret",
        meaning: "the key of HS256, HS384 and HS512; at least 32 bytes, better from a variable: \"${JWT_SECRET}\"",
        kind: Kind::Text {
            form: "a text of at least 32 bytes",
            write: |config, _, text| {
                config.auth.jwt.secret = Secret(text.to_owned());
                Ok(())
            },
        },
        read: |config, _| Value::from(if config.auth.jwt.secret.0.is_empty() { "" } else { "***" }),
    },
    ConfigOption {
        path: "auth.jwt.public_key_file",
        meaning: "a public key in PEM, for RS, PS, ES and EdDSA",
        kind: Kind::Text {
            form: "a path",
            write: |config, _, text| {
                config.auth.jwt.public_key_file = file(text);
                Ok(())
            },
        },
        read: |config, _| shown(config.auth.jwt.public_key_file.as_ref()),
    },
    ConfigOption {
        path: "auth.jwt.keys_file",
        meaning: "a JSON Web Key Set in a file",
        kind: Kind::Text {
            form: "a path",
            write: |config, _, text| {
                if text.contains("://") {
                    return Err(Refusal::new("is a URL, and names a file", "give it to auth.jwt.keys_url"));
                }
                config.auth.jwt.keys_file = file(text);
                Ok(())
            },
        },
        read: |config, _| shown(config.auth.jwt.keys_file.as_ref()),
    },
    ConfigOption {
        path: "auth.jwt.keys_url",
        meaning: "where the issuer publishes its JSON Web Key Set; fetched at the start, every ten minutes while tokens come, \
                  and when a token names a key that is not known",
        kind: Kind::Text {
            form: "a URL with https: https://issuer.example/.well-known/jwks.json",
            write: |config, _, text| {
                text.clone_into(&mut config.auth.jwt.keys_url);
                Ok(())
            },
        },
        read: |config, _| Value::from(mask(&config.auth.jwt.keys_url)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_not_in_debug() {
        let config = JwtConfig { secret: Secret("hunter2".to_owned()), ..JwtConfig::default() };
        assert!(config.is_given() && !format!("{config:?}").contains("hunter2"));
    }
}
