//! What is to go wrong: plain values, no I/O.

use std::time::Duration;

/// What a proxy does. The default does nothing: everything passes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What happens to a new connection.
    pub accept: Accept,
    /// How probable it is that a new connection is reset instead.
    pub turn_away: Chance,
    /// What happens to what clients send.
    pub to_server: Lane,
    /// What happens to what the server sends.
    pub to_client: Lane,
}

/// What happens to a new connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Accept {
    /// It is connected to the server.
    #[default]
    Forward,
    /// Nobody listens: the client is refused at once. The port stays reserved.
    Refuse,
    /// Nobody answers: the client's attempt hangs, as behind a firewall that drops. The operating system repeats the
    /// attempt after 1, 3, 7 s, so it may succeed that much later than the fault is healed.
    Ignore,
    /// It is accepted, nothing is read from it and nothing said, until the plan says something else.
    Hang,
    /// It is accepted and reset.
    Reset,
}

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lane {
    /// Whether they get through at all.
    pub flow: Flow,
    /// How late they come. Order is kept.
    pub delay: Duration,
    /// By how much the delay varies, up and down, evenly.
    pub jitter: Duration,
    /// How fast they come at most.
    pub bytes_per_second: Option<u64>,
    /// How many are written at once at most; each slice is a segment of its own.
    pub slice_bytes: Option<usize>,
    /// Where the connection ends.
    pub cut: Option<Cut>,
    /// Which bits arrive wrong.
    pub flip: Option<Flip>,
}

/// Whether bytes get through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flow {
    /// They do.
    #[default]
    Pass,
    /// They wait, as does the end of the stream, until the plan says something else. None is lost. When 1 MiB waits, no
    /// more is read, so that the sender blocks.
    Hold,
    /// They vanish. The end of the stream waits.
    Swallow,
}

/// How a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// In order, by FIN. When the client still sends, its operating system is answered by RST.
    Close,
    /// By RST towards the client. The server sees an end in order, after all that was forwarded.
    Reset,
}

/// Where a connection ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The place.
    pub at: CutAt,
    /// How.
    pub ending: Ending,
    /// How probable it is, drawn each time that the place is reached.
    pub chance: Chance,
    /// Whether only the first connection that gets there is cut. Then the cut is taken out of the plan.
    pub once: bool,
}

/// The place of a cut. Bytes are counted, and patterns looked for, from the last change of the plan (or the connection's
/// beginning), in what is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CutAt {
    /// When so many have been forwarded.
    Bytes(u64),
    /// When the pattern comes: all of it but its last byte may have been forwarded, never the whole.
    Before(Vec<u8>),
    /// When the whole pattern has been forwarded, and not a byte more.
    After(Vec<u8>),
    /// Before or after the pattern, one as probable as the other.
    Around(Vec<u8>),
}

/// Which bits arrive wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flip {
    /// One of each connection: the so manieth from the last change of the plan, the lowest of a byte first.
    At(u64),
    /// One bit of a byte, with this chance for each byte.
    Chance(Chance),
}

/// A probability, in millionths, so that a seed gives the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance {
    per_million: u32,
}

impl Chance {
    /// Not at all.
    pub const NEVER: Self = Self { per_million: 0 };
    /// Every time.
    pub const ALWAYS: Self = Self { per_million: 1_000_000 };

    /// So many times in a million.
    pub const fn per_million(per_million: u32) -> Self {
        Self { per_million }
    }

    /// So many times in a hundred.
    pub const fn percent(percent: u32) -> Self {
        Self { per_million: percent * 10_000 }
    }

    pub(crate) fn is_hit(self, random: &mut crate::Random) -> bool {
        match self {
            Self::NEVER => false,
            Self::ALWAYS => true,
            Self { per_million } => random.below(1_000_000) < u64::from(per_million),
        }
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::NEVER
    }
}

impl Plan {
    /// Connections live and nothing moves, new ones included: a server or a network that stands still.
    pub fn stalled() -> Self {
        Self::default().both(&Lane::default().held())
    }

    /// No byte passes, and who connects is not answered.
    pub fn partitioned() -> Self {
        Self::stalled().accept(Accept::Ignore)
    }

    /// What happens to new connections.
    pub fn accept(mut self, accept: Accept) -> Self {
        self.accept = accept;
        self
    }

    /// How probable it is that a new connection is reset.
    pub fn turn_away(mut self, chance: Chance) -> Self {
        self.turn_away = chance;
        self
    }

    /// What happens to what clients send.
    pub fn to_server(mut self, lane: Lane) -> Self {
        self.to_server = lane;
        self
    }

    /// What happens to what the server sends.
    pub fn to_client(mut self, lane: Lane) -> Self {
        self.to_client = lane;
        self
    }

    /// The same in both directions.
    pub fn both(self, lane: &Lane) -> Self {
        self.to_server(lane.clone()).to_client(lane.clone())
    }
}

impl Lane {
    /// Bytes wait: [`Flow::Hold`].
    pub fn held(mut self) -> Self {
        self.flow = Flow::Hold;
        self
    }

    /// Bytes vanish: [`Flow::Swallow`].
    pub fn swallowed(mut self) -> Self {
        self.flow = Flow::Swallow;
        self
    }

    /// Bytes come late, by `delay` give or take `jitter`.
    pub fn delayed(mut self, delay: Duration, jitter: Duration) -> Self {
        self.delay = delay;
        self.jitter = jitter;
        self
    }

    /// Bytes come slowly.
    pub fn limited(mut self, bytes_per_second: u64) -> Self {
        self.bytes_per_second = Some(bytes_per_second);
        self
    }

    /// Bytes come so many at a time.
    pub fn sliced(mut self, slice_bytes: usize) -> Self {
        self.slice_bytes = Some(slice_bytes);
        self
    }

    /// The connection ends.
    pub fn cut(mut self, cut: Cut) -> Self {
        self.cut = Some(cut);
        self
    }

    /// Bits arrive wrong.
    pub fn flipped(mut self, flip: Flip) -> Self {
        self.flip = Some(flip);
        self
    }
}

impl Cut {
    /// Always, in order.
    pub fn new(at: CutAt) -> Self {
        Self { at, ending: Ending::Close, chance: Chance::ALWAYS, once: false }
    }

    /// After so many bytes.
    pub fn after_bytes(bytes: u64) -> Self {
        Self::new(CutAt::Bytes(bytes))
    }

    /// Before the pattern is whole.
    pub fn before(pattern: impl Into<Vec<u8>>) -> Self {
        Self::new(CutAt::Before(pattern.into()))
    }

    /// After the pattern.
    pub fn after(pattern: impl Into<Vec<u8>>) -> Self {
        Self::new(CutAt::After(pattern.into()))
    }

    /// Before or after the pattern.
    pub fn around(pattern: impl Into<Vec<u8>>) -> Self {
        Self::new(CutAt::Around(pattern.into()))
    }

    /// By RST.
    pub fn by_reset(mut self) -> Self {
        self.ending = Ending::Reset;
        self
    }

    /// Not every time.
    pub fn with_chance(mut self, chance: Chance) -> Self {
        self.chance = chance;
        self
    }

    /// Only the first time, of all connections.
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }
}
