//! The directive table: one [`Directive`] a directive, in one file a section.
//!
//! Everything that knows directives reads them here: the parser (`walk`), `relais explain`,
//! `docs/directives.md`. To add a directive, add its row; what it does is then `resolve`'s.
//! A default stands in its row and nowhere else.

mod action;
mod backend;
mod balance;
mod check;
mod cluster;
mod compression;
mod condition;
mod foreign;
mod frontend;
mod messages;
mod persist;
mod platform;
mod rule;
mod shield;
mod tiers;
mod vip;

pub use foreign::foreign;

/// Where a directive may stand: the file itself, or the block of another directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// Outside every block.
    File,
    /// `platform NAME { }`
    Platform,
    /// `node NAME { }`, also within `site`.
    Node,
    /// `vip NAME { }`
    Vip,
    /// `frontend NAME { }`
    Frontend,
    /// `bind "ADDRESS:PORT" { }`
    Bind,
    /// `tls { }`
    Tls,
    /// `rule "WHAT IT IS FOR" { }`
    Rule,
    /// `shield { }`
    Shield,
    /// `cache NAME { }`
    Cache,
    /// `backend NAME { }`
    Backend,
    /// `check http { }`
    Check,
    /// `compression { }`
    Compression,
    /// `tomcat NAME { }`
    Tomcat,
    /// `galera NAME { }`
    Galera,
    /// `gluster NAME { }`
    Gluster,
    /// `mount "PATH" { }`
    Mount,
    /// `sync NAME { }`
    Sync,
    /// `resource NAME { }`
    Resource,
    /// `site NAME { }`
    Site,
    /// `objective NAME { }`
    Objective,
    /// `alert NAME { }`
    Alert,
}

impl Section {
    /// Every section, in the order of the manual.
    pub const ALL: [Self; 22] = [
        Self::File,
        Self::Platform,
        Self::Node,
        Self::Vip,
        Self::Frontend,
        Self::Bind,
        Self::Tls,
        Self::Rule,
        Self::Shield,
        Self::Cache,
        Self::Backend,
        Self::Check,
        Self::Compression,
        Self::Tomcat,
        Self::Galera,
        Self::Gluster,
        Self::Mount,
        Self::Sync,
        Self::Resource,
        Self::Site,
        Self::Objective,
        Self::Alert,
    ];

    /// The directive whose block it is; empty for the file itself.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "",
            Self::Platform => "platform",
            Self::Node => "node",
            Self::Vip => "vip",
            Self::Frontend => "frontend",
            Self::Bind => "bind",
            Self::Tls => "tls",
            Self::Rule => "rule",
            Self::Shield => "shield",
            Self::Cache => "cache",
            Self::Backend => "backend",
            Self::Check => "check",
            Self::Compression => "compression",
            Self::Tomcat => "tomcat",
            Self::Galera => "galera",
            Self::Gluster => "gluster",
            Self::Mount => "mount",
            Self::Sync => "sync",
            Self::Resource => "resource",
            Self::Site => "site",
            Self::Objective => "objective",
            Self::Alert => "alert",
        }
    }

    /// Where it is, in a sentence: "in a `vip`".
    pub fn place(self) -> String {
        match self {
            Self::File => "at the top of the file".into(),
            Self::Alert | Self::Objective => format!("in an `{}`", self.name()),
            _ => format!("in a `{}`", self.name()),
        }
    }
}

/// What names stand for; a name is unique within its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The platform itself.
    Platform,
    /// A machine.
    Node,
    /// A machine of another site.
    SiteNode,
    /// A virtual address.
    Vip,
    /// A frontend.
    Frontend,
    /// A rule; unique within its frontend.
    Rule,
    /// A cache.
    Cache,
    /// A backend.
    Backend,
    /// A server; unique within its backend.
    Server,
    /// A secret.
    Secret,
    /// A tier of Tomcats.
    Tomcat,
    /// A Galera cluster.
    Galera,
    /// A Gluster volume.
    Gluster,
    /// A synchronised directory.
    Sync,
    /// A cluster resource.
    Resource,
    /// Another site.
    Site,
    /// A promise.
    Objective,
    /// Who hears of a broken one.
    Alert,
}

impl Kind {
    /// The word that declares one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Node | Self::SiteNode => "node",
            Self::Vip => "vip",
            Self::Frontend => "frontend",
            Self::Rule => "rule",
            Self::Cache => "cache",
            Self::Backend => "backend",
            Self::Server => "server",
            Self::Secret => "secret",
            Self::Tomcat => "tomcat",
            Self::Galera => "galera",
            Self::Gluster => "gluster",
            Self::Sync => "sync",
            Self::Resource => "resource",
            Self::Site => "site",
            Self::Objective => "objective",
            Self::Alert => "alert",
        }
    }

    /// Whether it is unique within its block only, not in the whole file.
    pub fn is_local(self) -> bool {
        matches!(self, Self::Rule | Self::Server)
    }

    /// How many there may be.
    pub fn most(self) -> usize {
        match self {
            // Said otherwise: the directive itself stands once.
            Self::Platform => usize::MAX,
            Self::Server => 10_000,
            _ => 1_000,
        }
    }
}

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    /// A new name of this kind.
    Name(Kind),
    /// The name of one that the file has.
    Reference(Kind),
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these words, or several of them joined by `+`.
    Words(&'static [&'static str]),
    /// Any text of 1 to 255 characters without control characters.
    Text,
    /// An absolute path on the machine.
    Path,
    /// An absolute path of a file that has to exist where it is used.
    File,
    /// Where to write: `off`, `stdout`, an absolute path, or a syslog server.
    LogTarget,
    /// The name of a format of access lines, or a text with HAProxy's `%` names.
    LogFormat,
    /// The name of a header field (RFC 9110 §5.1).
    HeaderName,
    /// The path of a URL: begins with `/`.
    UrlPath,
    /// An `http://` or `https://` URL.
    Url,
    /// A pattern for URL paths: begins with `/`, may contain `*` and `**`.
    PathPattern,
    /// A DNS host name.
    Host,
    /// A DNS host name, or `*.` before one.
    HostPattern,
    /// A regular expression of rules.
    Regex,
    /// A field value, which may have `%{placeholders}`.
    HeaderValue,
    /// Where a redirect leads, which may have `%{placeholders}`.
    Location,
    /// Name of a network interface: 1 to 15 characters.
    Interface,
    /// `NAME@HOST`.
    Mail,
    /// A whole number.
    Integer(u64, u64),
    /// A number with decimals.
    Decimal(f64, f64),
    /// A whole number from minus this to this.
    Signed(i16),
    /// A time span, limits in milliseconds.
    Duration(u64, u64),
    /// A number of bytes.
    Size(u64, u64),
    /// A whole number, which may be written as a size in bytes.
    Amount(u64, u64),
    /// An IP address.
    Ip,
    /// `ADDRESS:PORT`, where the address may be `*`.
    Listen,
    /// `ADDRESS:PORT`.
    Socket,
    /// `ADDRESS/PREFIX` that a machine can have.
    Address,
    /// Networks in CIDR notation, with spaces between them.
    Networks,
    /// A status code or a range of them: `200`, `"200-399"`.
    Statuses,
}

/// Whether a value has to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Exactly one.
    Required,
    /// One or more: arguments only, as the last.
    OneOrMore,
    /// Any number, also none, which means what this sentence says: arguments only, as the last.
    Any(&'static str),
    /// May be left out; then it means what this sentence says.
    Optional(&'static str),
    /// May be left out; then it is this.
    Default(&'static str),
}

/// One argument or property of a directive.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The property's name; of an argument, the name it has in the manual.
    pub name: &'static str,
    /// What it may be.
    pub kind: Type,
    /// Whether it has to be given.
    pub need: Need,
    /// What it means, a sentence without a full stop.
    pub doc: &'static str,
}

/// How often a directive may stand in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// At most once.
    Once,
    /// Exactly once.
    Required,
    /// As often as one likes.
    Many,
    /// Once or more.
    OneOrMore,
}

/// What comes of a directive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// This build acts on it; the tests of these names show it.
    Tests(&'static [&'static str]),
    /// This build only validates it; this is what it will do.
    Later(&'static str),
}

/// One directive, or one form of it.
#[derive(Clone, Copy, Debug)]
pub struct Directive {
    /// The word.
    pub name: &'static str,
    /// The word after it that chooses between rows of the same name: `http` of `check http`.
    pub form: Option<&'static str>,
    /// Where it may stand.
    pub inside: &'static [Section],
    /// What follows it, in order.
    pub arguments: &'static [Field],
    /// `name=value` pairs.
    pub properties: &'static [Field],
    /// The section that its block is.
    pub block: Option<Section>,
    /// How often it may stand in one block.
    pub times: Times,
    /// What it means: sentences.
    pub doc: &'static str,
    /// It, as one would write it.
    pub example: &'static str,
    /// What comes of it.
    pub effect: Effect,
}

impl Directive {
    /// Whether it is what a rule does, rather than a setting.
    pub fn is_action(&self) -> bool {
        self.inside == [Section::Rule] && self.doc.starts_with("Action:")
    }

    /// A row with nothing in it, for `..Directive::EMPTY`.
    const EMPTY: Self = Self {
        name: "",
        form: None,
        inside: &[],
        arguments: &[],
        properties: &[],
        block: None,
        times: Times::Once,
        doc: "",
        example: "",
        effect: Effect::Later(""),
    };

    /// The word, or the two words of a form: `check http`.
    pub fn title(&self) -> String {
        match self.form {
            Some(form) => format!("{} {form}", self.name),
            None => self.name.into(),
        }
    }

    /// Whether this build acts on it.
    pub fn acts(&self) -> bool {
        matches!(self.effect, Effect::Tests(_))
    }
}

const fn required(name: &'static str, kind: Type, doc: &'static str) -> Field {
    Field { name, kind, need: Need::Required, doc }
}

const fn many(name: &'static str, kind: Type, doc: &'static str) -> Field {
    Field { name, kind, need: Need::OneOrMore, doc }
}

const fn any(name: &'static str, kind: Type, absent: &'static str, doc: &'static str) -> Field {
    Field { name, kind, need: Need::Any(absent), doc }
}

const fn optional(name: &'static str, kind: Type, absent: &'static str, doc: &'static str) -> Field {
    Field { name, kind, need: Need::Optional(absent), doc }
}

const fn default(name: &'static str, kind: Type, default: &'static str, doc: &'static str) -> Field {
    Field { name, kind, need: Need::Default(default), doc }
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Every row, in the order of the manual.
pub fn all() -> impl Iterator<Item = &'static Directive> {
    [
        platform::ROWS,
        messages::ROWS,
        vip::ROWS,
        frontend::ROWS,
        rule::ROWS,
        condition::ROWS,
        condition::COUNTING,
        action::ROWS,
        shield::ROWS,
        backend::ROWS,
        persist::ROWS,
        check::ROWS,
        balance::ROWS,
        compression::ROWS,
        tiers::ROWS,
        cluster::ROWS,
    ]
    .into_iter()
    .flatten()
}

/// The rows that may stand in `section`.
pub fn inside(section: Section) -> impl Iterator<Item = &'static Directive> {
    all().filter(move |d| d.inside.contains(&section))
}

/// The rows for `name` in `section`: none, one, or one a form.
pub fn rows(section: Section, name: &str) -> Vec<&'static Directive> {
    inside(section).filter(|d| d.name == name).collect()
}

/// The number of a syslog facility (RFC 5424 §6.2.1).
pub(crate) fn facility(name: &str) -> Option<usize> {
    platform::FACILITIES.iter().position(|known| *known == name)
}
