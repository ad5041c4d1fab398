//! C2SP `tlog-policy`: which logs are accepted, and which witnesses must have cosigned.
//!
//! ```text
//! log <vkey> [<url>]
//! witness <name> <vkey> [<url>]
//! group <name> <k>|any|all <name>...
//! quorum <name>|none
//! ```
//!
//! One policy serves everybody: a verifier holds a checkpoint against it offline ([`Policy::check`]), a log asks the
//! witnesses at their URLs until the quorum is met ([`Policy::is_met`]). Names mean something inside the file alone.
//! Each name is a member of at most one group, so that a witness counts in one way only.
//!
//! Stricter than the format in one thing: the file must be UTF-8 (the format recommends it).

use std::{collections::HashMap, fmt};

use super::{
    checkpoint::{Checkpoint, CheckpointError},
    cosignature::{CosignerKey, LogKey, checkpoint_of},
    note::{Note, NoteError},
};

/// Logs, witnesses and groups that a policy may have, each; the format asks for at least 32.
pub const MOST: usize = 64;
/// Longest policy that is read, in bytes: 128 post-quantum keys fit.
pub const MOST_BYTES: usize = 1024 * 1024;
/// The name of the empty quorum.
const NONE: &str = "none";

/// Why a text is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy, line {line}: {problem}")]
pub struct PolicyError {
    /// The line, from 1; 0 for the whole.
    pub line: usize,
    /// What is wrong with it, and what to write.
    pub problem: String,
}

/// Why a checkpoint is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyDenial {
    /// The note is malformed, or a known key's signature does not verify.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No log of the policy signed it.
    #[error("checkpoint of {0:?} is not signed by a log of the policy")]
    UnknownLog(String),
    /// Too few witnesses cosigned.
    #[error("checkpoint does not meet the quorum {quorum}: cosigned by {}", names(.cosigned))]
    Quorum {
        /// The name of the quorum.
        quorum: String,
        /// The names of the witnesses that cosigned.
        cosigned: Vec<String>,
    },
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

/// A log whose checkpoints are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyLog {
    /// Its key, whose name is its origin.
    pub key: LogKey,
    /// Where it is found, for whoever wants to ask it.
    pub url: Option<String>,
}

/// A witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyWitness {
    /// Its name in the policy.
    pub name: String,
    /// Its key.
    pub key: CosignerKey,
    /// Its submission prefix.
    pub url: Option<String>,
}

/// A witness or a group, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Witness(usize),
    Group(usize),
}

/// Who must have cosigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quorum {
    None,
    Of(Member),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    threshold: usize,
    members: Vec<Member>,
}

/// A parsed policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    /// A group's members stand before it.
    groups: Vec<Group>,
    quorum: Quorum,
}

/// A checkpoint that a log of the policy signed and a quorum of its witnesses cosigned.
///
/// Only [`Policy::check`] makes one, so holding one is the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witnessed {
    checkpoint: Checkpoint,
    cosigned: Vec<(String, u64)>,
}

impl Witnessed {
    /// What the checkpoint says.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The witnesses that cosigned, by their names in the policy, each with the time of its cosignature in seconds
    /// since 1970.
    pub fn cosigned(&self) -> &[(String, u64)] {
        &self.cosigned
    }
}

impl Policy {
    /// Parses a policy.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let whole = |problem: &str| PolicyError { line: 0, problem: problem.to_owned() };
        if text.len() > MOST_BYTES {
            return Err(whole(&format!("it is longer than {MOST_BYTES} bytes")));
        }
        let body = match text.strip_suffix('\n') {
            Some(body) => body,
            None if text.is_empty() => "",
            None => return Err(whole("the last line does not end in a newline: the file may have been cut off")),
        };
        let mut parser = Parser::default();
        for (line, number) in body.split('\n').zip(1..) {
            parser.line(line).map_err(|problem| PolicyError { line: number, problem })?;
        }
        let quorum = parser.quorum.ok_or_else(|| whole("there is no quorum; write a line `quorum NAME`"))?;
        Ok(Self { logs: parser.logs, witnesses: parser.witnesses, groups: parser.groups, quorum })
    }

    /// The logs that are accepted; none where the log is known otherwise.
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// All witnesses; their positions are what [`Self::is_met`] takes.
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// The name of the quorum; `none` for the empty one.
    pub fn quorum(&self) -> &str {
        match self.quorum {
            Quorum::None => NONE,
            Quorum::Of(member) => self.name_of(member),
        }
    }

    fn name_of(&self, member: Member) -> &str {
        let name = match member {
            Member::Witness(at) => self.witnesses.get(at).map(|witness| &witness.name),
            Member::Group(at) => self.groups.get(at).map(|group| &group.name),
        };
        name.map_or(NONE, |name| name)
    }

    /// Whether the witnesses at the positions where `cosigned` is true meet the quorum.
    pub fn is_met(&self, cosigned: &[bool]) -> bool {
        let mut groups: Vec<bool> = Vec::with_capacity(self.groups.len());
        let has = |groups: &[bool], member: Member| match member {
            Member::Witness(at) => cosigned.get(at).copied().unwrap_or(false),
            Member::Group(at) => groups.get(at).copied().unwrap_or(false),
        };
        for group in &self.groups {
            let met = group.members.iter().filter(|member| has(&groups, **member)).count();
            groups.push(met >= group.threshold);
        }
        match self.quorum {
            Quorum::None => true,
            Quorum::Of(member) => has(&groups, member),
        }
    }

    /// Holds a note against the policy: signed by one of its logs, cosigned by a quorum of its witnesses.
    ///
    /// # Errors
    /// The first thing that does not hold. A line of a known key that does not verify refuses the whole note, however
    /// many others verify.
    pub fn check(&self, note: &str) -> Result<Witnessed, PolicyDenial> {
        let note = Note::parse(note)?;
        let (checkpoint, _) = checkpoint_of(note.text_unsafe())?;
        let mut signed = false;
        for log in self.logs.iter().filter(|log| log.key.origin() == checkpoint.origin) {
            signed |= present(log.key.verify(&note))?.is_some();
        }
        if !signed {
            return Err(PolicyDenial::UnknownLog(checkpoint.origin));
        }
        let mut cosigned = Vec::new();
        let mut at = vec![false; self.witnesses.len()];
        for (witness, at) in self.witnesses.iter().zip(&mut at) {
            if let Some(time) = present(witness.key.verify(&note))? {
                cosigned.push((witness.name.clone(), time));
                *at = true;
            }
        }
        if !self.is_met(&at) {
            let cosigned = cosigned.into_iter().map(|(name, _)| name).collect();
            return Err(PolicyDenial::Quorum { quorum: self.quorum().to_owned(), cosigned });
        }
        Ok(Witnessed { checkpoint, cosigned })
    }
}

/// The absence of a signature is an answer; everything else that is wrong with one is an error.
fn present<T>(verified: Result<T, NoteError>) -> Result<Option<T>, NoteError> {
    match verified {
        Ok(found) => Ok(Some(found)),
        Err(NoteError::Unsigned(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = |url: &Option<String>| url.as_ref().map_or_else(String::new, |url| format!(" {url}"));
        for log in &self.logs {
            writeln!(f, "log {}{}", log.key.vkey(), url(&log.url))?;
        }
        for witness in &self.witnesses {
            writeln!(f, "witness {} {}{}", witness.name, witness.key.vkey(), url(&witness.url))?;
        }
        for group in &self.groups {
            let members: Vec<&str> = group.members.iter().map(|member| self.name_of(*member)).collect();
            writeln!(f, "group {} {} {}", group.name, group.threshold, members.join(" "))?;
        }
        writeln!(f, "quorum {}", self.quorum())
    }
}

/// What the lines so far defined.
#[derive(Default)]
struct Parser<'a> {
    logs: Vec<PolicyLog>,
    witnesses: Vec<PolicyWitness>,
    groups: Vec<Group>,
    quorum: Option<Quorum>,
    /// Each name, and whether a group has it as a member already.
    names: HashMap<&'a str, (Member, bool)>,
}

impl<'a> Parser<'a> {
    fn line(&mut self, line: &'a str) -> Result<(), String> {
        if line.chars().any(|c| c.is_ascii_control() && c != '\t') {
            return Err("it holds a control character; lines end in a newline alone".to_owned());
        }
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let first = words.next().unwrap_or("#");
        let words: Vec<&str> = words.collect();
        match (first, words.as_slice()) {
            (comment, _) if comment.starts_with('#') => Ok(()),
            ("log", &[vkey]) => self.log(vkey, None),
            ("log", &[vkey, url]) => self.log(vkey, Some(url)),
            ("log", _) => Err("write `log VKEY [URL]`".to_owned()),
            ("witness", &[name, vkey]) => self.witness(name, vkey, None),
            ("witness", &[name, vkey, url]) => self.witness(name, vkey, Some(url)),
            ("witness", _) => Err("write `witness NAME VKEY [URL]`".to_owned()),
            ("group", &[name, threshold, ref members @ ..]) if !members.is_empty() => {
                self.group(name, threshold, members)
            }
            ("group", _) => Err("write `group NAME K|any|all MEMBER...`, with at least one member".to_owned()),
            ("quorum", &[name]) => self.quorum(name),
            ("quorum", _) => Err("write `quorum NAME` or `quorum none`".to_owned()),
            (other, _) => Err(format!("{other:?} is none of log, witness, group and quorum")),
        }
    }

    fn log(&mut self, vkey: &str, url: Option<&str>) -> Result<(), String> {
        let key = LogKey::parse(vkey).map_err(|source| format!("log key: {source}"))?;
        if self.logs.iter().any(|log| log.key.public() == key.public()) {
            return Err(format!("the key of {:?} is listed already", key.origin()));
        }
        self.logs.push(PolicyLog { key, url: url.map(str::to_owned) });
        bounded(self.logs.len())
    }

    fn witness(&mut self, name: &'a str, vkey: &str, url: Option<&str>) -> Result<(), String> {
        let key = CosignerKey::parse(vkey).map_err(|source| format!("key of the witness {name:?}: {source}"))?;
        if self.witnesses.iter().any(|witness| witness.key.public() == key.public()) {
            return Err(format!("the key of {name:?} is listed already, and a witness counts once"));
        }
        self.define(name, Member::Witness(self.witnesses.len()))?;
        self.witnesses.push(PolicyWitness { name: name.to_owned(), key, url: url.map(str::to_owned) });
        bounded(self.witnesses.len())
    }

    fn group(&mut self, name: &'a str, threshold: &str, members: &[&'a str]) -> Result<(), String> {
        let threshold = match threshold {
            "any" => 1,
            "all" => members.len(),
            number => number.parse().ok().filter(|k: &usize| k.to_string() == number).unwrap_or(0),
        };
        if !(1..=members.len()).contains(&threshold) {
            return Err(format!("the threshold is any, all, or a number from 1 to {}", members.len()));
        }
        let members = members.iter().map(|member| self.join(member)).collect::<Result<_, _>>()?;
        self.define(name, Member::Group(self.groups.len()))?;
        self.groups.push(Group { name: name.to_owned(), threshold, members });
        bounded(self.groups.len())
    }

    fn quorum(&mut self, name: &str) -> Result<(), String> {
        if self.quorum.is_some() {
            return Err("there is a quorum already; a policy has one".to_owned());
        }
        self.quorum = Some(if name == NONE { Quorum::None } else { Quorum::Of(self.known(name)?.0) });
        Ok(())
    }

    fn define(&mut self, name: &'a str, member: Member) -> Result<(), String> {
        if name == NONE {
            return Err(format!("{NONE:?} is the name of the empty quorum; choose another"));
        }
        match self.names.insert(name, (member, false)) {
            None => Ok(()),
            Some(_) => Err(format!("{name:?} is defined already; witnesses and groups share their names")),
        }
    }

    fn known(&mut self, name: &str) -> Result<&mut (Member, bool), String> {
        self.names.get_mut(name).ok_or_else(|| format!("{name:?} is not defined on a line before"))
    }

    fn join(&mut self, name: &str) -> Result<Member, String> {
        let (member, joined) = self.known(name)?;
        if std::mem::replace(joined, true) {
            return Err(format!("{name:?} is a member of a group already; it can count in one way only"));
        }
        Ok(*member)
    }
}

fn bounded(count: usize) -> Result<(), String> {
    if count > MOST { Err(format!("there are more than {MOST} of these; the limit is {MOST}")) } else { Ok(()) }
}
