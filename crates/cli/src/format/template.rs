//! The part of Go's `text/template` that users of `--format` write.
//!
//! Actions: fields, variables, pipelines, `if`, `with`, `range`, comments, trimming; functions: those of Go
//! but `call`, `html`, `js` and `urlquery`, and docker's `json`, `join`, `split`, `lower`, `upper`, `title`,
//! `pad`, `truncate`, `println`. Not: `define`, `template`, `block`, `break`, `continue`.

mod execute;
mod function;
mod parse;

use crate::error::Error;

use super::data::Data;

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
enum Node {
    Text(String),
    Action(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

#[derive(Debug, Clone)]
struct Pipeline {
    /// `$a, $b :=`.
    variables: Vec<String>,
    /// `=` instead of `:=`.
    assign: bool,
    /// Each with its words; the result of one is the last argument of the next.
    commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone)]
struct Operand {
    /// Where in the template, for errors.
    at: usize,
    text: String,
    base: Base,
    /// `.A.B` after the base.
    fields: Vec<String>,
}

#[derive(Debug, Clone)]
enum Base {
    Dot,
    Variable(String),
    Function(String),
    Literal(Data),
    Group(Box<Pipeline>),
}

impl Template {
    /// Parses.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        parse::parse(text)
            .map(|nodes| Self { nodes })
            .map_err(|reason| Error::invalid(format!("failed to parse template: template: :{reason}")))
    }

    /// Executes on `data`.
    pub(crate) fn execute(&self, data: &Data) -> Result<String, Error> {
        execute::execute(&self.nodes, data)
            .map_err(|reason| Error::invalid(format!("failed to execute template: template: {reason}")))
    }

    /// For the heading of a table: what a pipeline does to a value is not done to the heading's name.
    pub(crate) fn without_functions(&self) -> Self {
        let mut template = self.clone();
        for node in &mut template.nodes {
            if let Node::Action(pipeline) = node {
                strip(pipeline);
            }
        }
        template
    }
}

fn strip(pipeline: &mut Pipeline) {
    let field = pipeline
        .commands
        .iter()
        .flatten()
        .find(|operand| matches!(operand.base, Base::Dot) && !operand.fields.is_empty());
    if let Some(field) = field.cloned() {
        pipeline.commands = vec![vec![field]];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(template: &str) -> String {
        let data = r#"{"Names":"web","Size":3,"Labels":{"a":"1","b.c":"2"},"State":{"Status":"running","Running":true},
            "Mounts":[{"Source":"/a"},{"Source":"/b"}],"Env":["X=1","Y=2"],"None":null}"#;
        let data = serde_json::from_str::<Data>(data).unwrap().with_maps();
        match Template::parse(template).and_then(|template| template.execute(&data)) {
            Ok(text) => text,
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_users_write() {
        for (template, expected) in [
            ("{{.Names}}", "web"),
            ("{{ .State.Status }} x", "running x"),
            ("{{json .State}}", "{\"Status\":\"running\",\"Running\":true}"),
            ("{{range .Mounts}}{{.Source}};{{end}}", "/a;/b;"),
            ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Source}} {{end}}", "0=/a 1=/b "),
            ("{{range $k, $v := .Labels}}{{$k}}:{{$v}},{{end}}", "a:1,b.c:2,"),
            ("{{index .Labels \"b.c\"}}", "2"),
            ("{{index .Mounts 1}}", "{/b}"),
            ("{{(index .Mounts 0).Source}}", "/a"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if eq .State.Status \"exited\"}}a{{else if .Size}}b{{else}}c{{end}}", "b"),
            ("{{if and (gt .Size 2) (not .None)}}yes{{end}}", "yes"),
            ("{{with .Labels}}{{.a}}{{end}}", "1"),
            ("{{join .Env \",\"}}", "X=1,Y=2"),
            ("{{.Names | upper | printf \"%s-%d %d\" \"x\"}}", "x-%!d(string=WEB) %!d(MISSING)"),
            (
                "{{printf \"%-6s|%q|%v|%5d|%.1f|%t\" .Names .Names .Env .Size 1.25 true}}",
                "web   |\"web\"|[X=1 Y=2]|    3|1.2|true",
            ),
            ("{{len .Env}} {{len .Names}}", "2 3"),
            ("{{split \"a/b\" \"/\"}}", "[a b]"),
            ("{{truncate .Names 2}}|{{pad .Names 1 2}}|{{title \"abc\"}}", "we| web  |Abc"),
            ("a {{- /* no */ -}} b", "ab"),
            ("{{$x := .Names}}{{$x}}{{$x = \"y\"}}{{$x}}", "weby"),
            ("{{.Labels.nosuch}}", "<no value>"),
            ("{{range .None}}x{{else}}empty{{end}}", "empty"),
            ("{{println .Names 1}}", "web 1\n"),
            ("{{slice .Names 1 3}}", "eb"),
            ("{{`raw`}}{{\"a\\tb\"}}", "rawa\tb"),
            ("{{.Labels}}", "map[a:1 b.c:2]"),
            ("{{range .Mounts}}{{$.Names}}{{end}}", "webweb"),
        ] {
            assert_eq!(run(template), expected, "{template}");
        }
    }

    #[test]
    fn errors() {
        for (template, expected) in [
            ("{{.ID", "failed to parse template: template: :1: unclosed action"),
            ("{{nosuch .ID}}", "failed to parse template: template: :1: function \"nosuch\" not defined"),
            ("{{if .A}}", "failed to parse template: template: :1: unexpected EOF"),
            ("{{end}}", "failed to parse template: template: :1: unexpected {{end}}"),
            ("{{$x}}", "failed to parse template: template: :1: undefined variable \"$x\""),
            (
                "{{.Nosuch}}",
                "failed to execute template: template: :1:2: executing \"\" at <.Nosuch>: can't evaluate field Nosuch",
            ),
            (
                "{{index .Env 5}}",
                "failed to execute template: template: :1:2: executing \"\" at <index>: error calling index: index out of range: 5",
            ),
        ] {
            assert_eq!(run(template), expected, "{template}");
        }
    }
}
