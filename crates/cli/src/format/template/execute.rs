//! Nodes to text.

use std::borrow::Cow;

use super::{Base, Defined, Node, Operand, Pipeline, function};
use crate::format::data::Data;

/// Why it failed, after the template's name: `:1:2: executing "" at <.Foo>: …`.
type Reason = String;

/// How deep templates may call each other.
const DEEPEST: usize = 200;

pub(super) fn execute(nodes: &[Node], defined: &Defined, data: &Data) -> Result<String, Reason> {
    let mut state = State {
        defined,
        name: "",
        depth: 0,
        variables: vec![("$".to_owned(), Cow::Borrowed(data))],
        out: String::new(),
    };
    state.list(nodes, data)?;
    Ok(state.out)
}

struct State<'a> {
    defined: &'a Defined,
    /// Of the template that is executed; empty for the whole.
    name: &'a str,
    depth: usize,
    variables: Vec<(String, Cow<'a, Data>)>,
    out: String,
}

/// Where execution goes on after a node: with the next one, or in the `range` around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl<'a> State<'a> {
    fn list(&mut self, nodes: &'a [Node], dot: &Data) -> Result<Flow, Reason> {
        for node in nodes {
            let depth = self.variables.len();
            let flow = match node {
                Node::Text(text) => {
                    self.out.push_str(text);
                    continue;
                }
                Node::Action(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        self.out.push_str(&value.to_string());
                    } else {
                        self.declare(pipeline, &[value]);
                    }
                    continue;
                }
                Node::If { condition, then, otherwise } => {
                    let value = self.pipeline(condition, dot)?;
                    self.declare(condition, std::slice::from_ref(&value));
                    self.list(if value.is_true() { then } else { otherwise }, dot)?
                }
                Node::With { value, then, otherwise } => {
                    let found = self.pipeline(value, dot)?;
                    self.declare(value, std::slice::from_ref(&found));
                    match found.is_true() {
                        true => self.list(then, &found)?,
                        false => self.list(otherwise, dot)?,
                    }
                }
                Node::Range { over, body, otherwise } => self.range(over, body, otherwise, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
                Node::Call { name, data, at } => {
                    let data = data.as_ref().map(|data| self.pipeline(data, dot)).transpose()?;
                    self.call(name, data, *at)?;
                    continue;
                }
            };
            self.variables.truncate(depth);
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        over: &Pipeline,
        body: &'a [Node],
        otherwise: &'a [Node],
        dot: &Data,
    ) -> Result<Flow, Reason> {
        let items: Vec<(Data, Data)> = match self.pipeline(over, dot)? {
            Data::Array(items) => {
                items.into_iter().enumerate().map(|(index, item)| (Data::Int(index as i64), item)).collect()
            }
            Data::Map(members) | Data::Struct(members) => Data::sorted_members(&members)
                .into_iter()
                .map(|(key, value)| (Data::String(key.clone()), value.clone()))
                .collect(),
            Data::Int(count) => (0..count).map(|index| (Data::Int(index), Data::Int(index))).collect(),
            Data::Null | Data::Missing => Vec::new(),
            other => return Err(format!(":1: executing {:?}: range can't iterate over {other}", self.name)),
        };
        if items.is_empty() {
            return self.list(otherwise, dot);
        }
        for (key, item) in items {
            let depth = self.variables.len();
            match over.variables.len() {
                2 => self.declare(over, &[key, item.clone()]),
                _ => self.declare(over, std::slice::from_ref(&item)),
            }
            let flow = self.list(body, &item)?;
            self.variables.truncate(depth);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    /// Executes a template with variables of its own.
    fn call(&mut self, name: &'a str, data: Option<Data>, at: usize) -> Result<(), Reason> {
        let failed = |state: &Self, reason: &str| {
            format!(":1:{at}: executing {:?} at <{{{{template {name:?}}}}}>: {reason}", state.name)
        };
        let Some(nodes) = self.defined.get(name) else {
            return Err(failed(self, &format!("template {name:?} not defined")));
        };
        if self.depth == DEEPEST {
            return Err(failed(self, &format!("exceeded maximum template depth ({DEEPEST})")));
        }
        let data = data.unwrap_or(Data::Missing);
        let caller = std::mem::replace(&mut self.name, name);
        let variables =
            std::mem::replace(&mut self.variables, vec![("$".to_owned(), Cow::Owned(data.clone()))]);
        self.depth += 1;
        self.list(nodes, &data)?;
        self.depth -= 1;
        (self.name, self.variables) = (caller, variables);
        Ok(())
    }

    fn declare(&mut self, pipeline: &Pipeline, values: &[Data]) {
        for (name, value) in pipeline.variables.iter().zip(values) {
            let known = self.variables.iter_mut().rev().find(|(variable, _)| variable == name);
            match known {
                Some((_, old)) if pipeline.assign => *old = Cow::Owned(value.clone()),
                _ => self.variables.push((name.clone(), Cow::Owned(value.clone()))),
            }
        }
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Data) -> Result<Data, Reason> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Data::Null))
    }

    fn command(&self, command: &[Operand], dot: &Data, piped: Option<Data>) -> Result<Data, Reason> {
        let Some((first, rest)) = command.split_first() else { return Ok(Data::Null) };
        let Base::Function(name) = &first.base else {
            // Docker's `.Label "name"` is a method; here it is a map.
            if let ([name], None) = (rest, &piped)
                && let Ok(Data::Map(labels)) = self.operand(first, dot)
            {
                let arguments = [Data::Map(labels), self.operand(name, dot)?];
                return function::call("index", &arguments).map_err(|reason| self.at(first, &reason));
            }
            if !rest.is_empty() || piped.is_some() {
                return Err(self.at(first, &format!("can't give argument to non-function {}", first.text)));
            }
            return self.operand(first, dot);
        };
        let mut arguments =
            rest.iter().map(|operand| self.operand(operand, dot)).collect::<Result<Vec<_>, _>>()?;
        arguments.extend(piped);
        function::call(name, &arguments)
            .map_err(|reason| self.at(first, &format!("error calling {name}: {reason}")))
    }

    fn operand(&self, operand: &Operand, dot: &Data) -> Result<Data, Reason> {
        let base: Cow<'_, Data> = match &operand.base {
            Base::Dot => Cow::Borrowed(dot),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(variable, _)| variable == name);
                Cow::Borrowed(found.map_or(&Data::Null, |(_, value)| value))
            }
            Base::Literal(value) => Cow::Borrowed(value),
            Base::Group(pipeline) => Cow::Owned(self.pipeline(pipeline, dot)?),
            Base::Function(name) => Cow::Owned(
                function::call(name, &[])
                    .map_err(|reason| self.at(operand, &format!("error calling {name}: {reason}")))?,
            ),
        };
        let found = operand.fields.iter().try_fold(&*base, |value, field| {
            value.member(field).ok_or_else(|| {
                self.at(
                    operand,
                    &match value {
                        Data::Null | Data::Missing => format!("nil data; no entry for key {field:?}"),
                        _ => format!("can't evaluate field {field}"),
                    },
                )
            })
        });
        found.cloned()
    }

    fn at(&self, operand: &Operand, reason: &str) -> Reason {
        format!(":1:{}: executing {:?} at <{}>: {reason}", operand.at, self.name, operand.text)
    }
}
