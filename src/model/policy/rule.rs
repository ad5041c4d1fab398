//! CEL expressions: the rest, what the built-in checks do not say.
//!
//! Variables: `image` {`name`, `tag`, `digest`, `registry`, `repository`} or null, `digest`, `environment` and
//! `service` (null when the question does not state them), `request` {`namespace`, `environment`, `service`} (CEL
//! reserves the word `namespace` for itself, except behind a dot), `now` (timestamp), `attestations` and `provenance` (the newest one, or null). An attestation is {`predicateType`, `predicate`, `signer` {`subject`,
//! `issuer`} or {`key`}, `signedAt` (timestamp or null), `logIndex` (int or null)}. Only statements by signers whom
//! the policy names are shown.
//!
//! A rule that does not compile, names an unknown variable or function, or is too big or too deep is refused at
//! load. So is one that can pass for want of evidence: `attestations.all(a, …)` is true of an empty list. Where
//! `all` stands, the same list must also be asked `size(…)`, `exists(…)` or `!= []` in that expression. The guard
//! reads the text and cannot tell `size(x) > 0` from `size(x) >= 0`; `policy test` with a case without
//! evidence can. `!attestations.exists(a, bad)` is not refused: "nothing bad was found" is sometimes what is meant.
//!
//! Evaluation that fails, or yields no boolean, is never a yes: see [`Rule::evaluate`]. `cel` has no budget at run
//! time, so sizes are bounded instead ([`limits`]), and it may panic, which is caught and counts as failing.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, IdedExpr, Program, Value,
    common::ast::{EntryExpr, Expr, LiteralValue},
};

use crate::model::limits;

const VARIABLES: [&str; 8] =
    ["image", "digest", "request", "environment", "service", "now", "attestations", "provenance"];
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "duration", "int", "list", "map", "null_type", "string", "timestamp"];
const FUNCTIONS: [&str; 29] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "min",
    "max",
    "type",
    "dyn",
    "bool",
    "bytes",
    "double",
    "int",
    "uint",
    "string",
    "duration",
    "timestamp",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "has",
    "in",
];

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name, unique in the policy.
    pub name: String,
    /// What is said when it is false.
    pub message: String,
    /// What to do then.
    pub remedy: String,
    program: Program,
    reads_predicates: bool,
    reads_evidence: bool,
}

impl Rule {
    /// Compiles an expression.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn compile(name: &str, expression: &str, message: &str, remedy: &str) -> Result<Self, String> {
        if expression.len() > limits::RULE {
            return Err(format!("the expression has {} bytes; the limit is {}", expression.len(), limits::RULE));
        }
        if brackets_deeper_than(expression, limits::RULE_DEPTH) {
            return Err(format!("the expression is nested deeper than {} levels", limits::RULE_DEPTH));
        }
        let program = catch_unwind(AssertUnwindSafe(|| ENV.compile(expression)))
            .map_err(|_panic| "the CEL parser cannot read the expression".to_owned())?
            .map_err(|source| format!("not a CEL expression: {}", first_of(&source.to_string())))?;
        let mut walk = Walk::default();
        walk.visit(program.expression(), 0)?;
        walk.refuse_vacuous()?;
        let (reads_predicates, reads_evidence) = (walk.reads_predicates, walk.reads_evidence);
        Ok(Self {
            name: name.to_owned(),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
            program,
            reads_predicates,
            reads_evidence,
        })
    }

    /// Whether the rule looks into predicates, which are then handed in.
    pub fn reads_predicates(&self) -> bool {
        self.reads_predicates
    }

    /// Whether the rule looks at `attestations` or `provenance`.
    pub fn reads_evidence(&self) -> bool {
        self.reads_evidence
    }

    /// Evaluates the rule over these variables.
    ///
    /// # Errors
    /// Why it has no answer: an evaluation error, or something that is not a boolean.
    pub fn evaluate(&self, variables: &[(&'static str, Value)]) -> Result<bool, String> {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut context = Context::with_env(Arc::clone(&ENV));
            for (name, value) in variables {
                context.add_variable_from_value(*name, value.clone());
            }
            self.program.execute(&context)
        }));
        match result {
            Ok(Ok(Value::Bool(answer))) => Ok(answer),
            Ok(Ok(other)) => Err(format!("it yields a {}, not a boolean", other.type_of())),
            Ok(Err(error)) => Err(error.to_string().chars().take(limits::NAME).collect()),
            Err(_panic) => Err("the CEL interpreter gave up".to_owned()),
        }
    }
}

/// The first of the parser's errors; the others follow from it. In text it is `ERROR: <input>:LINE:COLUMN: …`, and below it
/// the line that is meant.
fn first_of(errors: &str) -> String {
    let first = errors.lines().next().unwrap_or_default();
    limits::quoted(&first.replace("ERROR: <input>:", "at "))
}

/// Whether brackets outside of strings nest deeper than `most`; looked at before the parser recurses into them.
fn brackets_deeper_than(text: &str, most: usize) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > most
    })
}

/// One pass over a parsed expression: bounds, names, and which lists are asked what.
#[derive(Default)]
struct Walk<'e> {
    nodes: usize,
    loops: usize,
    bound: Vec<&'e str>,
    /// Lists under `all`.
    quantified: Vec<String>,
    /// Lists whose size is asked, or of which one element must exist.
    guarded: Vec<String>,
    reads_predicates: bool,
    reads_evidence: bool,
}

impl<'e> Walk<'e> {
    fn visit(&mut self, node: &'e IdedExpr, depth: usize) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > limits::RULE_NODES {
            return Err(format!("the expression has more than {} parts", limits::RULE_NODES));
        }
        if depth > limits::RULE_DEPTH {
            return Err(format!("the expression is nested deeper than {} levels", limits::RULE_DEPTH));
        }
        match &node.expr {
            Expr::Unspecified => Err("the expression is incomplete".to_owned()),
            Expr::Literal(LiteralValue::String(text)) if text.inner() == "predicate" => {
                self.reads_predicates = true;
                Ok(())
            }
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                self.reads_predicates |= select.field == "predicate";
                self.visit(&select.operand, depth + 1)
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.visit(element, depth + 1)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, depth + 1)?;
                    self.visit(&entry.value, depth + 1)
                }
                EntryExpr::StructField(field) => self.visit(&field.value, depth + 1),
            }),
            Expr::Struct(structure) => Err(format!("unknown type {}", structure.type_name)),
            Expr::Call(call) => {
                self.call(&call.func_name, call.target.as_deref(), &call.args)?;
                call.target.iter().try_for_each(|target| self.visit(target, depth + 1))?;
                call.args.iter().try_for_each(|argument| self.visit(argument, depth + 1))
            }
            Expr::Comprehension(inner) => {
                self.visit(&inner.iter_range, depth + 1)?;
                let list = shape(&inner.iter_range);
                match &inner.accu_init.expr {
                    Expr::Literal(LiteralValue::Boolean(start)) if *start.inner() => self.quantified.push(list),
                    Expr::Literal(_) => self.guarded.push(list),
                    _ => {}
                }
                self.loops += 1;
                if self.loops > limits::RULE_LOOPS {
                    return Err(format!("all, exists, map and filter stand deeper than {} levels", limits::RULE_LOOPS));
                }
                let outside = self.bound.len();
                self.bound.push(&inner.iter_var);
                self.bound.extend(inner.iter_var2.as_deref());
                self.bound.push(&inner.accu_var);
                for part in [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result] {
                    self.visit(part, depth + 1)?;
                }
                self.bound.truncate(outside);
                self.loops -= 1;
                Ok(())
            }
        }
    }

    fn name(&mut self, name: &str) -> Result<(), String> {
        if self.bound.contains(&name) || name.starts_with('@') || TYPES.contains(&name) {
            return Ok(());
        }
        if !VARIABLES.contains(&name) {
            return Err(format!("unknown variable {name:?}; there are {}", VARIABLES.join(", ")));
        }
        self.reads_predicates |= name == "provenance";
        self.reads_evidence |= name == "provenance" || name == "attestations";
        Ok(())
    }

    fn call(&mut self, function: &str, target: Option<&IdedExpr>, arguments: &[IdedExpr]) -> Result<(), String> {
        let operator = !function.starts_with(|first: char| first.is_ascii_alphabetic());
        if !operator && !FUNCTIONS.contains(&function) {
            return Err(format!("unknown function {function:?}; there are {}", FUNCTIONS.join(", ")));
        }
        match (function, target, arguments) {
            ("size", Some(list), []) | ("size", None, [list]) => self.guarded.push(shape(list)),
            ("_!=_", None, [left, right]) => {
                let empty = |node: &IdedExpr| matches!(&node.expr, Expr::List(list) if list.elements.is_empty());
                if empty(right) {
                    self.guarded.push(shape(left));
                } else if empty(left) {
                    self.guarded.push(shape(right));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn refuse_vacuous(&self) -> Result<(), String> {
        if self.quantified.iter().all(|list| self.guarded.contains(list)) {
            return Ok(());
        }
        Err("all(…) is true of an empty list, so the rule would pass for want of evidence; \
             write size(list) > 0 && list.all(…)"
            .to_owned())
    }
}

/// The text of an expression without its node numbers, to compare two places of one rule.
fn shape(node: &IdedExpr) -> String {
    let text = format!("{node:?}");
    let mut parts = text.split("id: ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |shape, part| shape + part.trim_start_matches(|digit: char| digit.is_ascii_digit()))
}
