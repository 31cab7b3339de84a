//! Text to nodes.

use super::{Base, Defined, Node, Operand, Pipeline, function};
use crate::format::data::Data;

/// Why it is no template, after the name: `1: unclosed action`.
type Reason = String;

pub(super) fn parse(text: &str) -> Result<(Vec<Node>, Defined), Reason> {
    let mut parser = Parser {
        pieces: pieces(text)?,
        next: 0,
        variables: vec!["$".to_owned()],
        depth: 0,
        ranges: 0,
        defined: Defined::new(),
    };
    let (nodes, end) = parser.list()?;
    match end {
        None => Ok((nodes, parser.defined)),
        Some(end) => Err(format!("{}: unexpected {{{{{end}}}}}", 1)),
    }
}

/// A run of text, or the tokens of an action.
#[derive(Debug)]
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// `.`, `.A.B`, `$x.A`, a function's or keyword's name; with its place.
    Word(String, usize),
    Literal(Data),
    Open,
    /// `)` with the fields after it.
    Close(Vec<String>),
    Pipe,
    Comma,
    Declare,
    Assign,
}

fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn pieces(text: &str) -> Result<Vec<Piece>, Reason> {
    let mut pieces = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    while at < text.len() {
        let open = text[at..].find("{{").map(|found| at + found);
        let mut run = &text[at..open.unwrap_or(text.len())];
        if trim_next {
            run = run.trim_start();
        }
        let Some(open) = open else {
            pieces.push(Piece::Text(run.to_owned()));
            break;
        };
        let mut start = open + 2;
        if text[start..].starts_with("- ") {
            run = run.trim_end();
            start += 2;
        }
        if !run.is_empty() {
            pieces.push(Piece::Text(run.to_owned()));
        }
        let unclosed = || format!("{}: unclosed action", line(text, open));
        if text[start..].trim_start().starts_with("/*") {
            let close =
                text[start..].find("*/").ok_or_else(|| format!("{}: unclosed comment", line(text, open)))?;
            let rest = &text[start + close + 2..];
            trim_next = rest.starts_with(" -}}");
            let end = rest.find("}}").ok_or_else(unclosed)?;
            at = start + close + 2 + end + 2;
            continue;
        }
        let (tokens, end, trim) = tokens(text, start)?;
        trim_next = trim;
        pieces.push(Piece::Action(tokens));
        at = end;
    }
    Ok(pieces)
}

/// The tokens from `at` to `}}`; where the text goes on, and whether its blanks are trimmed.
fn tokens(text: &str, mut at: usize) -> Result<(Vec<Token>, usize, bool), Reason> {
    let mut tokens = Vec::new();
    loop {
        let rest = &text[at..];
        let Some(letter) = rest.chars().next() else {
            return Err(format!("{}: unclosed action", line(text, at)));
        };
        if rest.starts_with("}}") {
            return Ok((tokens, at + 2, false));
        }
        if rest.starts_with(" -}}") {
            return Ok((tokens, at + 4, true));
        }
        let length = match letter {
            letter if letter.is_whitespace() => letter.len_utf8(),
            '(' => push(&mut tokens, Token::Open, 1),
            '|' => push(&mut tokens, Token::Pipe, 1),
            ',' => push(&mut tokens, Token::Comma, 1),
            ')' => {
                let fields = word_length(&rest[1..]);
                push(&mut tokens, Token::Close(split_fields(&rest[1..=fields])), 1 + fields)
            }
            ':' if rest.starts_with(":=") => push(&mut tokens, Token::Declare, 2),
            '=' => push(&mut tokens, Token::Assign, 1),
            '"' | '`' | '\'' => {
                let (literal, length) = quoted(rest, letter)
                    .ok_or_else(|| format!("{}: unterminated quoted string", line(text, at)))?;
                push(&mut tokens, Token::Literal(literal), length)
            }
            letter if letter.is_ascii_digit() || "+-".contains(letter) => {
                let length = rest[1..]
                    .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.')
                    .map_or(rest.len(), |end| end + 1);
                let literal = number(&rest[..length])
                    .ok_or_else(|| format!("{}: bad number syntax: {:?}", line(text, at), &rest[..length]))?;
                push(&mut tokens, Token::Literal(literal), length)
            }
            _ => {
                let length = word_length(rest);
                if length == 0 {
                    return Err(format!("{}: unexpected {letter:?} in command", line(text, at)));
                }
                let word = &rest[..length];
                let token = match word {
                    "true" => Token::Literal(Data::Bool(true)),
                    "false" => Token::Literal(Data::Bool(false)),
                    "nil" => Token::Literal(Data::Null),
                    _ => Token::Word(word.to_owned(), at),
                };
                push(&mut tokens, token, length)
            }
        };
        at += length;
    }
}

fn push(tokens: &mut Vec<Token>, token: Token, length: usize) -> usize {
    tokens.push(token);
    length
}

fn word_length(text: &str) -> usize {
    text.find(|letter: char| !(letter.is_alphanumeric() || "._$".contains(letter))).unwrap_or(text.len())
}

fn split_fields(text: &str) -> Vec<String> {
    text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// A string or character at the start of `text`, and its length.
fn quoted(text: &str, quote: char) -> Option<(Data, usize)> {
    if quote == '`' {
        let end = text[1..].find('`')?;
        return Some((Data::String(text[1..=end].to_owned()), end + 2));
    }
    let mut out = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            letter if letter == quote => {
                let literal = match quote {
                    '\'' => Data::Int(i64::from(u32::from(out.chars().next()?))),
                    _ => Data::String(out),
                };
                return Some((literal, at + 1));
            }
            '\n' => return None,
            '\\' => out.push(match letters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                '0' => '\0',
                other => other,
            }),
            letter => out.push(letter),
        }
    }
    None
}

fn number(text: &str) -> Option<Data> {
    if let Ok(value) = text.parse() {
        return Some(Data::Int(value));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(Data::Int);
    }
    text.parse().ok().map(Data::Float)
}

struct Parser {
    pieces: Vec<Piece>,
    next: usize,
    /// Those that are declared where we are.
    variables: Vec<String>,
    /// How many actions with an `end` are around us, and how many of them are a `range` of this template.
    depth: usize,
    ranges: usize,
    defined: Defined,
}

impl Parser {
    /// Nodes up to `end` or `else`, which is given back with what follows it.
    fn list(&mut self) -> Result<(Vec<Node>, Option<String>), Reason> {
        let mut nodes = Vec::new();
        while self.next < self.pieces.len() {
            let piece = std::mem::replace(&mut self.pieces[self.next], Piece::Text(String::new()));
            self.next += 1;
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(word, _)) => word.as_str(),
                None => return Err("1: missing value for command".to_owned()),
                _ => "",
            };
            match keyword {
                "end" => return Ok((nodes, Some("end".to_owned()))),
                "else" => {
                    if tokens.len() > 1 {
                        // `else if`: the rest is read as an `if` of its own, which takes our `end`.
                        self.next -= 1;
                        self.pieces[self.next] = Piece::Action(tokens[1..].to_vec());
                        return Ok((nodes, Some("else if".to_owned())));
                    }
                    return Ok((nodes, Some("else".to_owned())));
                }
                "if" | "with" | "range" => nodes.push(self.block(keyword, &tokens[1..])?),
                "define" if self.depth == 0 => self.define(&tokens)?,
                "define" => return Err("1: unexpected <define> in command".to_owned()),
                "template" | "block" => nodes.push(self.template(keyword, &tokens)?),
                "break" | "continue" if self.ranges == 0 => {
                    return Err(format!("1: {{{{{keyword}}}}} outside {{{{range}}}}"));
                }
                "break" => nodes.push(Node::Break),
                "continue" => nodes.push(Node::Continue),
                _ => nodes.push(Node::Action(self.pipeline(&tokens)?)),
            }
        }
        Ok((nodes, None))
    }

    /// `{{define "name"}}`, and what it defines.
    fn define(&mut self, tokens: &[Token]) -> Result<(), Reason> {
        let name = name(tokens, "define")?;
        if let Some(token) = tokens.get(2) {
            return Err(format!("1: unexpected {} in define clause", shown(Some(token))));
        }
        self.body(name)
    }

    /// `{{template "name" pipeline}}`; `{{block …}}` defines that template, too.
    fn template(&mut self, keyword: &str, tokens: &[Token]) -> Result<Node, Reason> {
        let name = name(tokens, keyword)?;
        let data = match &tokens[2..] {
            [] if keyword == "block" => return Err("1: missing value for block clause".to_owned()),
            [] => None,
            data => Some(self.pipeline(data)?),
        };
        if keyword == "block" {
            self.body(name.clone())?;
        }
        let at = match tokens.first() {
            Some(Token::Word(word, at)) => at + word.len() + 1,
            _ => 0,
        };
        Ok(Node::Call { name, data, at })
    }

    /// What stands up to `end`, as the template `name`. One of blanks alone defines nothing where there is another.
    fn body(&mut self, name: String) -> Result<(), Reason> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let ranges = std::mem::take(&mut self.ranges);
        self.depth += 1;
        let (nodes, end) = self.list()?;
        self.depth -= 1;
        (self.variables, self.ranges) = (variables, ranges);
        match end.as_deref() {
            Some("end") => {}
            Some(other) => return Err(format!("1: unexpected {{{{{other}}}}} in define clause")),
            None => return Err("1: unexpected EOF".to_owned()),
        }
        let is_empty = |nodes: &[Node]| {
            nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
        };
        match self.defined.get(&name) {
            Some(other) if is_empty(&nodes) && !is_empty(other) => {}
            Some(other) if !is_empty(other) => {
                return Err(format!("1: template: multiple definition of template {name:?}"));
            }
            _ => {
                self.defined.insert(name, nodes);
            }
        }
        Ok(())
    }

    fn block(&mut self, keyword: &str, tokens: &[Token]) -> Result<Node, Reason> {
        let declared = self.variables.len();
        let pipeline = self.pipeline(tokens)?;
        let range = usize::from(keyword == "range");
        (self.depth, self.ranges) = (self.depth + 1, self.ranges + range);
        let (then, end) = self.list()?;
        self.ranges -= range;
        let otherwise = match end.as_deref() {
            None => return Err("1: unexpected EOF".to_owned()),
            Some("end") => Vec::new(),
            Some("else if") => {
                let Piece::Action(tokens) =
                    std::mem::replace(&mut self.pieces[self.next], Piece::Text(String::new()))
                else {
                    return Err("1: unexpected EOF".to_owned());
                };
                self.next += 1;
                match tokens.first() {
                    Some(Token::Word(word, _)) if word == "if" || word == "with" => {
                        vec![self.block(&word.clone(), &tokens[1..])?]
                    }
                    _ => return Err("1: unexpected token in else".to_owned()),
                }
            }
            Some(_) => match self.list()? {
                (nodes, Some(end)) if end == "end" => nodes,
                (_, Some(end)) => return Err(format!("1: expected end; found {{{{{end}}}}}")),
                (_, None) => return Err("1: unexpected EOF".to_owned()),
            },
        };
        self.depth -= 1;
        self.variables.truncate(declared);
        Ok(match keyword {
            "if" => Node::If { condition: pipeline, then, otherwise },
            "with" => Node::With { value: pipeline, then, otherwise },
            _ => Node::Range { over: pipeline, body: then, otherwise },
        })
    }

    fn pipeline(&mut self, tokens: &[Token]) -> Result<Pipeline, Reason> {
        let mut tokens = tokens.iter().peekable();
        let pipeline = self.pipeline_until(&mut tokens, false)?;
        Ok(pipeline)
    }

    fn pipeline_until(
        &mut self,
        tokens: &mut std::iter::Peekable<std::slice::Iter<'_, Token>>,
        group: bool,
    ) -> Result<Pipeline, Reason> {
        let mut pipeline = Pipeline { variables: Vec::new(), assign: false, commands: vec![Vec::new()] };
        self.declaration(tokens, &mut pipeline)?;
        loop {
            let Some(token) = tokens.next() else {
                if group {
                    return Err("1: unclosed left paren".to_owned());
                }
                break;
            };
            let last = pipeline.commands.len() - 1;
            match token {
                Token::Pipe => pipeline.commands.push(Vec::new()),
                Token::Close(fields) if group => {
                    // The fields belong to the group as a whole.
                    pipeline.variables.extend(fields.iter().map(|field| format!(".{field}")));
                    break;
                }
                Token::Open => {
                    let mut inner = self.pipeline_until(tokens, true)?;
                    let fields = inner
                        .variables
                        .iter()
                        .filter_map(|name| name.strip_prefix('.').map(str::to_owned))
                        .collect();
                    inner.variables.retain(|name| !name.starts_with('.'));
                    pipeline.commands[last].push(Operand {
                        at: 0,
                        text: "(…)".to_owned(),
                        base: Base::Group(Box::new(inner)),
                        fields,
                    });
                }
                Token::Literal(value) => pipeline.commands[last].push(Operand {
                    at: 0,
                    text: value.to_string(),
                    base: Base::Literal(value.clone()),
                    fields: Vec::new(),
                }),
                Token::Word(word, at) => pipeline.commands[last].push(self.word(word, *at)?),
                Token::Close(_) => return Err("1: unexpected right paren".to_owned()),
                Token::Comma | Token::Declare | Token::Assign => {
                    return Err("1: unexpected token in operand".to_owned());
                }
            }
        }
        if pipeline.commands.iter().any(Vec::is_empty) {
            return Err("1: missing value for command".to_owned());
        }
        Ok(pipeline)
    }

    /// `$a :=`, `$a, $b :=`, `$a =`.
    fn declaration(
        &mut self,
        tokens: &mut std::iter::Peekable<std::slice::Iter<'_, Token>>,
        pipeline: &mut Pipeline,
    ) -> Result<(), Reason> {
        let ahead: Vec<&Token> = tokens.clone().take(4).collect();
        let names: Vec<&String> = match ahead[..] {
            [Token::Word(name, _), Token::Declare | Token::Assign, ..] => vec![name],
            [Token::Word(first, _), Token::Comma, Token::Word(second, _), Token::Declare | Token::Assign] => {
                vec![first, second]
            }
            _ => return Ok(()),
        };
        if names.iter().any(|name| !name.starts_with('$')) {
            return Err("1: unexpected \":=\" in operand".to_owned());
        }
        let count = names.len() * 2;
        pipeline.assign = ahead[count - 1] == &Token::Assign;
        for name in names {
            if pipeline.assign && !self.variables.contains(name) {
                return Err(format!("1: undefined variable {name:?}"));
            }
            pipeline.variables.push(name.clone());
            self.variables.push(name.clone());
        }
        for _ in 0..count {
            tokens.next();
        }
        Ok(())
    }

    fn word(&self, word: &str, at: usize) -> Result<Operand, Reason> {
        let operand = |base, fields| Operand { at, text: word.to_owned(), base, fields };
        if let Some(fields) = word.strip_prefix('.') {
            return Ok(operand(Base::Dot, split_fields(fields)));
        }
        if word.starts_with('$') {
            let (name, fields) = word.split_once('.').unwrap_or((word, ""));
            if !self.variables.iter().any(|variable| variable == name) {
                return Err(format!("1: undefined variable {name:?}"));
            }
            return Ok(operand(Base::Variable(name.to_owned()), split_fields(fields)));
        }
        if function::NAMES.contains(&word) {
            return Ok(operand(Base::Function(word.to_owned()), Vec::new()));
        }
        Err(format!("1: function {word:?} not defined"))
    }
}

/// The name after `define`, `template` or `block`.
fn name(tokens: &[Token], keyword: &str) -> Result<String, Reason> {
    match tokens.get(1) {
        Some(Token::Literal(Data::String(name))) => Ok(name.clone()),
        token => Err(format!("1: unexpected {} in {keyword} clause", shown(token))),
    }
}

/// A token in an error.
fn shown(token: Option<&Token>) -> String {
    match token {
        Some(Token::Word(word, _)) => format!("{word:?}"),
        Some(Token::Literal(value)) => format!("{:?}", value.to_string()),
        Some(_) => "token".to_owned(),
        None => "\"}}\"".to_owned(),
    }
}
