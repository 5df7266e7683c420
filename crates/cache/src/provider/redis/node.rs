//! One server: a few connections to it.
//!
//! All that changes anything goes through the first connection, in one line: a write whose caller gave up can then
//! never overtake, on another connection, a write that was made after it. Reads go where least is under way; further
//! connections are opened when there is a crowd.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value, cmd};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::connect::{Dial, Driver};
use super::errors::{Failure, unavailable};
use super::lane::{AbortOnDrop, Lane, keep_open};
use super::settings::{Login, Place};
use super::value;
use crate::provider::Error;

/// With so many calls under way on every connection another one is opened.
const CROWD: usize = 16;

/// Which connection a command may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// It changes something: after everything that was sent before it.
    Ordered,
    /// It only reads.
    Any,
}

pub(super) type Opened = (MultiplexedConnection, Driver);

/// Where a server is to be found, each time anew.
#[derive(Debug, Clone)]
pub(super) enum Target {
    At(Place),
    /// Where the sentinels say that the master is.
    Master {
        sentinels: Vec<(Place, Login)>,
        name: String,
    },
}

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// Another one after every start; empty when the server does not tell.
    pub(super) run: String,
    /// `INFO` as it came, for the table of known servers.
    pub(super) info: String,
}

/// How connections to one server are opened.
#[derive(Debug)]
pub(super) struct Door {
    target: Target,
    login: Login,
    dial: Arc<Dial>,
    identity: RwLock<Arc<Identity>>,
    /// Counts how often the first connection was opened.
    first: watch::Sender<u64>,
}

impl Door {
    /// One attempt, bounded in time. The first connection also asks who the server is, before anybody uses it.
    pub(super) async fn open(&self, is_first: bool) -> Result<Opened, Error> {
        let place = self.find().await?;
        let (connection, mut driver) = self.dial.commands(&place, &self.login).await?;
        if !is_first {
            return Ok((connection, driver));
        }
        let mut asking = connection.clone();
        let asked = tokio::time::timeout(self.dial.timeout, async {
            tokio::select! {
                () = &mut driver => Err(unavailable("connection broken")),
                answer = async { asking.send_packed_command(&cmd("INFO")).await } => {
                    answer.map_err(|error| Failure::of(error).into_error())
                }
            }
        });
        let info = asked.await.map_err(|_| unavailable("the server does not say who it is"))??;
        let info = value::text(info).unwrap_or_default();
        if matches!(self.target, Target::Master { .. })
            && field(&info, "role").is_some_and(|role| role != "master")
        {
            return Err(unavailable("whom the sentinels call master is none"));
        }
        let run =
            field(&info, "run_id").or_else(|| field(&info, "master_replid")).unwrap_or_default().to_owned();
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Identity { run, info });
        Ok((connection, driver))
    }

    /// A connection that listens.
    pub(super) async fn listen(&self) -> Result<redis::aio::PubSub, Error> {
        let place = self.find().await?;
        self.dial.listening(&place, &self.login).await
    }

    /// A connection is about to be open.
    pub(super) fn say_entering(&self) {
        self.dial.entered.fetch_add(1, Ordering::SeqCst);
    }

    /// The first connection is about to be open: its server is the one that counts.
    pub(super) fn say_opening(&self) {
        self.first.send_modify(|count| *count += 1);
    }

    /// The first connection is open.
    pub(super) fn say_opened(&self) {
        self.dial.opened.send_modify(|count| *count += 1);
    }

    /// Returns when the first connection was opened anew, perhaps to another server: whoever holds another connection
    /// gives it up, so that all lead to the same one.
    pub(super) fn reopened(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut first = self.first.subscribe();
        async move {
            if first.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn find(&self) -> Result<Place, Error> {
        let (sentinels, name) = match &self.target {
            Target::At(place) => return Ok(place.clone()),
            Target::Master { sentinels, name } => (sentinels, name),
        };
        let mut last = unavailable("no sentinel is known");
        for (place, login) in sentinels {
            match self.ask_sentinel(place, login, name).await {
                Ok(Some(master)) => return Ok(master),
                Ok(None) => last = unavailable("no sentinel knows that master; check sentinel_master"),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_sentinel(&self, place: &Place, login: &Login, name: &str) -> Result<Option<Place>, Error> {
        let (mut connection, mut driver) = self.dial.commands(place, login).await?;
        let mut question = cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(name);
        let asked = tokio::time::timeout(self.dial.timeout, async {
            tokio::select! {
                () = &mut driver => Err(unavailable("a sentinel hung up")),
                answer = async { connection.send_packed_command(&question).await } => {
                    answer.map_err(|error| Failure::of(error).into_error())
                }
            }
        });
        let answer = asked.await.map_err(|_| unavailable("a sentinel does not answer"))??;
        let Value::Array(parts) = answer else { return Ok(None) };
        let mut parts = parts.into_iter().map(value::text);
        let (Some(Some(host)), Some(Some(port))) = (parts.next(), parts.next()) else { return Ok(None) };
        Ok(port.parse().ok().map(|port| (host, port)))
    }
}

/// A line of `INFO`.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// One server.
#[derive(Debug)]
pub(super) struct Node {
    door: Arc<Door>,
    lanes: Vec<Arc<Lane>>,
    started: AtomicUsize,
    tasks: Mutex<Vec<AbortOnDrop>>,
}

impl Node {
    /// Connects in the background; where no runtime is at hand yet, with the first call.
    pub(super) fn new(target: Target, login: Login, dial: Arc<Dial>, connections_max: usize) -> Self {
        let door = Door { target, login, dial, identity: RwLock::default(), first: watch::Sender::new(0) };
        let node = Self {
            door: Arc::new(door),
            lanes: (0..connections_max.max(1)).map(|_| Arc::default()).collect(),
            started: AtomicUsize::new(0),
            tasks: Mutex::default(),
        };
        node.start();
        node
    }

    /// The host, where it is fixed.
    pub(super) fn host(&self) -> &str {
        match &self.door.target {
            Target::At((host, _)) => host,
            Target::Master { .. } => "",
        }
    }

    pub(super) fn door(&self) -> &Arc<Door> {
        &self.door
    }

    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.door.identity.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_open(&self) -> bool {
        self.lanes.first().is_some_and(|lane| lane.load().is_some())
    }

    /// Why it is not open.
    pub(super) fn reason(&self) -> String {
        self.lanes.first().map(|lane| lane.reason()).unwrap_or_default()
    }

    pub(super) fn start(&self) {
        if self.started.load(Ordering::Acquire) == 0 {
            self.start_lane(0);
        }
    }

    /// Every connection is given up for a new one, which may lead to another server.
    pub(super) fn renew(&self) {
        for lane in &self.lanes {
            if lane.load().is_some() {
                lane.renew();
            }
        }
    }

    pub(super) async fn one(&self, line: Line, command: &Cmd) -> Result<Value, Failure> {
        self.seen(self.pick(line)?.one(command).await)
    }

    pub(super) async fn many(&self, line: Line, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        self.seen(self.pick(line)?.many(commands).await)
    }

    /// A server that has become a replica is left for the one that is master now.
    fn seen<T>(&self, answer: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &answer
            && failure.code() == Some("READONLY")
        {
            self.renew();
        }
        answer
    }

    fn pick(&self, line: Line) -> Result<&Arc<Lane>, Failure> {
        let Some(first) = self.lanes.first() else {
            return Err(Failure::Gone("no connection is allowed".to_owned()));
        };
        let started = self.started.load(Ordering::Acquire);
        if started == 0 {
            self.start_lane(0);
        }
        if line == Line::Ordered {
            return Ok(first);
        }
        let open = self.lanes.iter().take(started).filter_map(|lane| Some((lane.load()?, lane)));
        let Some((load, lane)) = open.min_by_key(|(load, _)| *load) else { return Ok(first) };
        if load >= CROWD && started < self.lanes.len() {
            self.start_lane(started);
        }
        Ok(lane)
    }

    /// Starts the lane at `index`, unless somebody else just did.
    fn start_lane(&self, index: usize) {
        let Ok(runtime) = Handle::try_current() else { return };
        let Some(lane) = self.lanes.get(index) else { return };
        if self.started.compare_exchange(index, index + 1, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let task = runtime.spawn(keep_open(Arc::clone(lane), Arc::clone(&self.door), index == 0));
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            tasks.push(AbortOnDrop(task.abort_handle()));
        }
    }
}
