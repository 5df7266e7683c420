//! Where memcached servers listen, read from one text: `tcp://a:11211,b:11211`.

use std::fmt;

use super::ServerUrl;

/// memcached's own.
const PORT_DEFAULT: u16 = 11_211;

/// More are a slip.
const SERVERS_MAX: usize = 64;

/// One server. Shown without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct MemcachedServer {
    host: String,
    port: u16,
    login: Option<(String, String)>,
}

impl MemcachedServer {
    /// A server that wants no login.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, login: None }
    }

    /// Name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// User and password, for servers that were started with a file of them (`memcached -Y`).
    pub fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// The servers that `url` names, `tcp://[user:password@]host[:port]`, several of them with commas between. What is
    /// wrong is told without repeating it, since it may be a password.
    pub(super) fn list(url: &ServerUrl) -> Result<Vec<Self>, String> {
        let rest = url.expose().strip_prefix("tcp://").ok_or("it does not begin with tcp://")?;
        let servers: Vec<Self> = rest.split(',').map(Self::one).collect::<Result<_, _>>()?;
        if servers.len() > SERVERS_MAX {
            return Err(format!("{} servers; {SERVERS_MAX} are the most", servers.len()));
        }
        for (place, server) in servers.iter().enumerate() {
            if servers.iter().take(place).any(|other| other.to_string() == server.to_string()) {
                return Err(format!("{server} is named twice"));
            }
        }
        Ok(servers)
    }

    fn one(text: &str) -> Result<Self, String> {
        let (login, place) = match text.rsplit_once('@') {
            Some((login, place)) => {
                let (user, password) =
                    login.split_once(':').ok_or("a user without a password; write user:password@host")?;
                let decoded = unescape(user).zip(unescape(password));
                // The server reads them as words of one line.
                let is_word =
                    |text: &String| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
                let decoded = decoded.filter(|(user, password)| is_word(user) && is_word(password));
                (Some(decoded.ok_or("a user or password that memcached could not read")?), place)
            }
            None => (None, text),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or("an address with [ and without ]")?;
                (host, after.strip_prefix(':').or(after.is_empty().then_some("")).ok_or("text after ]")?)
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        if host.is_empty()
            || host.contains(|letter: char| !letter.is_ascii_graphic() || "/?#[]@".contains(letter))
        {
            return Err("a server without a name or address".to_owned());
        }
        let port = match port {
            "" => PORT_DEFAULT,
            port => port.parse().ok().filter(|port| *port > 0).ok_or("a port that is not 1 to 65535")?,
        };
        Ok(Self { host: host.to_owned(), port, login })
    }
}

/// `%XX` as the byte that it stands for.
fn unescape(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let code = piece.get(..2).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(piece.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

impl fmt::Display for MemcachedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for MemcachedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = if self.login.is_some() { "***@" } else { "" };
        write!(f, "{login}{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(url: &str) -> Result<Vec<String>, String> {
        let servers = MemcachedServer::list(&ServerUrl::new(url))?;
        Ok(servers.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn one_server_or_several() {
        assert_eq!(list("tcp://a:1").unwrap(), ["a:1"]);
        assert_eq!(list("tcp://a").unwrap(), ["a:11211"]);
        assert_eq!(list("tcp://a:1,b:2,[::1]:3,[::2]/").unwrap(), ["a:1", "b:2", "[::1]:3", "[::2]:11211"]);
    }

    #[test]
    fn login_is_read_and_not_shown() {
        let url = ServerUrl::new("tcp://us%65r:p%40ss@a:1");
        let servers = MemcachedServer::list(&url).unwrap();
        assert_eq!(servers[0].login(), Some(("user", "p@ss")));
        assert_eq!(format!("{servers:?} {}", servers[0]), "[***@a:1] a:1");
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_repeating_it() {
        for url in [
            "",
            "a:1",
            "http://a",
            "tcp://",
            "tcp://:1",
            "tcp://a:0",
            "tcp://a:70000",
            "tcp://a:x",
            "tcp://a,,b",
            "tcp://a,a:11211",
            "tcp://secret@a",
            "tcp://u:se%0Acret@a",
            "tcp://u:se%zzcret@a",
            "tcp://[::1",
            "tcp://[::1]secret",
            "tcp://a/secret",
            "tcp://u:@a",
            "tcp://a b",
        ] {
            let problem = list(url).expect_err(url);
            assert!(!problem.contains("secret"), "{problem}");
        }
        let many: Vec<_> = (0..65).map(|number| format!("host{number}")).collect();
        assert!(list(&format!("tcp://{}", many.join(","))).is_err());
    }
}
