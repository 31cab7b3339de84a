//! The part of Go's `text/template` that users of `--format` write.
//!
//! Actions: all of Go's; functions: those of Go but `call`, and docker's `json`, `join`, `split`, `lower`, `upper`,
//! `title`, `pad`, `truncate`.

mod execute;
mod function;
mod parse;

use std::collections::BTreeMap;

use crate::error::Error;

use super::data::Data;

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    nodes: Vec<Node>,
    defined: Defined,
}

/// Templates by name, of `define` and `block`.
type Defined = BTreeMap<String, Vec<Node>>;

#[derive(Debug, Clone)]
enum Node {
    Text(String),
    Action(Pipeline),
    If {
        condition: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        value: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
    /// A template by name, with the data that it gets.
    Call {
        name: String,
        data: Option<Pipeline>,
        at: usize,
    },
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
            .map(|(nodes, defined)| Self { nodes, defined })
            .map_err(|reason| Error::invalid(format!("failed to parse template: template: :{reason}")))
    }

    /// Executes on `data`.
    pub(crate) fn execute(&self, data: &Data) -> Result<String, Error> {
        execute::execute(&self.nodes, &self.defined, data)
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
            ("{{define \"x\"}}[{{.}}{{$}}]{{end}}{{template \"x\" .Names}}", "[webweb]"),
            ("{{template \"x\"}}{{define \"x\"}}{{.}}{{end}}", "<no value>"),
            ("{{block \"x\" .Size}}({{.}}){{end}}{{template \"x\" 4}}", "(3)(4)"),
            ("{{define \"x\"}} {{end}}{{define \"x\"}}b{{end}}{{template \"x\"}}", "b"),
            ("{{range .Env}}{{if eq . \"X=1\"}}{{continue}}{{end}}{{.}}{{else}}none{{end}}", "Y=2"),
            ("{{range .Env}}{{with .}}{{.}}{{break}}{{end}}{{end}}", "X=1"),
            ("{{html \"<a b=\\\"c\\\">&'\" 1 2}}", "&lt;a b=&#34;c&#34;&gt;&amp;&#39;1 2"),
            ("{{js \"it's <b> & = \\\"\\\\\\n\u{e9}\"}}", r#"it\'s \u003Cb\u003E \u0026 \u003D \"\\\u000Aé"#),
            ("{{html nil}}", "&lt;no value&gt;"),
            ("{{urlquery \"a b&c=d/\u{e9}~\"}}{{.Names | js | urlquery}}", "a+b%26c%3Dd%2F%C3%A9~web"),
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
            ("{{break}}", "failed to parse template: template: :1: {{break}} outside {{range}}"),
            ("{{define \"x\"}}", "failed to parse template: template: :1: unexpected EOF"),
            (
                "{{define x}}{{end}}",
                "failed to parse template: template: :1: unexpected \"x\" in define clause",
            ),
            (
                "{{define \"x\"}}a{{end}}{{define \"x\"}}b{{end}}",
                "failed to parse template: template: :1: template: multiple definition of template \"x\"",
            ),
            (
                "{{block \"x\"}}{{end}}",
                "failed to parse template: template: :1: missing value for block clause",
            ),
            (
                "{{if true}}{{define \"x\"}}{{end}}{{end}}",
                "failed to parse template: template: :1: unexpected <define> in command",
            ),
            (
                "{{$v := 1}}{{define \"x\"}}{{$v}}{{end}}",
                "failed to parse template: template: :1: undefined variable \"$v\"",
            ),
            (
                "{{template \"nosuch\"}}",
                "failed to execute template: template: :1:11: executing \"\" at <{{template \"nosuch\"}}>: template \"nosuch\" not defined",
            ),
            (
                "{{define \"a\"}}{{.Nosuch}}{{end}}{{template \"a\" .}}",
                "failed to execute template: template: :1:16: executing \"a\" at <.Nosuch>: can't evaluate field Nosuch",
            ),
            (
                "{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}",
                "failed to execute template: template: :1:25: executing \"a\" at <{{template \"a\"}}>: exceeded maximum template depth (200)",
            ),
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
