//! `/containers/{name}/…`: what flows for as long as a container runs: attach, wait, logs, stats.

use futures_util::StreamExt;
use futures_util::stream;
use hyper::Response;
use ponton_api::container::{WaitError, WaitResponse};
use ponton_api::version::ApiVersion;
use ponton_engine::request::{AttachRequest, LogsRequest, WaitCondition};

use crate::adapt;
use crate::answer::{self, Answer, Body};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::hijack::{self, Hijack, Order};
use crate::json_lines::{self, Framing};
use crate::router::routes;
use crate::websocket::WebSocket;

routes! {
    POST "/containers/{name}/attach" => attach,
    GET "/containers/{name}/attach/ws" => attach_by_web_socket,
    POST "/containers/{name}/wait" => wait,
    GET "/containers/{name}/logs" => logs,
    GET "/containers/{name}/stats" => stats,
}

async fn attach(mut call: Call) -> Result<Answer> {
    let query = call.query()?;
    let request = AttachRequest {
        logs: query.boolean("logs"),
        stream: query.boolean("stream"),
        stdin: query.boolean("stdin"),
        stdout: query.boolean("stdout"),
        stderr: query.boolean("stderr"),
        detach_keys: query.optional("detachKeys").map(str::to_owned),
        raw: false,
    };
    // A body means nothing, but what follows it is the container's input.
    call.short_body().await?;
    let info = call.engine.attach_info(call.name(), &request).await?;
    let order = if info.writes_at_once { Order::AnswerFirst } else { Order::EngineFirst };
    let upgrade = Hijack::is_upgrade(&call.headers);
    let content_type = hijack::stream_type(info.tty, call.version);
    let hand_over: hijack::HandOver = Box::new(move |connection| {
        Box::pin(async move { call.engine.attach(call.name(), request, connection).await })
    });
    Ok(Answer::Hijack(Hijack { upgrade, content_type, order, hand_over }))
}

/// Both outputs are one stream of bytes. Which streams a client wants it may say since 1.42.
async fn attach_by_web_socket(call: Call) -> Result<Answer> {
    let query = call.query()?;
    let wants = |name| call.version < ApiVersion::new(1, 42) || query.boolean(name);
    let request = AttachRequest {
        logs: query.boolean("logs"),
        stream: query.boolean("stream"),
        stdin: wants("stdin"),
        stdout: wants("stdout"),
        stderr: wants("stderr"),
        detach_keys: query.optional("detachKeys").map(str::to_owned),
        raw: true,
    };
    call.engine.attach_info(call.name(), &request).await?;
    let binary = call.version >= ApiVersion::new(1, 28);
    let headers = call.headers.clone();
    let hand_over: hijack::HandOver = Box::new(move |connection| {
        Box::pin(async move { call.engine.attach(call.name(), request, connection).await })
    });
    Ok(Answer::WebSocket(WebSocket::new(&headers, binary, hand_over)?))
}

/// The head is sent as soon as the wait is registered: a client may start the container then.
async fn wait(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let condition = match query.text("condition") {
        _ if call.version < ApiVersion::new(1, 30) => WaitCondition::NotRunning,
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(Error::invalid(format!("invalid condition: {other:?}"))),
    };
    let ended = call.engine.wait(call.name(), condition).await?;
    let line = async {
        let response = ended.await.unwrap_or_else(|error| WaitResponse {
            status_code: -1,
            error: Some(WaitError { message: error.to_string() }),
        });
        Ok::<_, std::io::Error>(json_lines::encode(&response, Framing::Lines))
    };
    Ok(answer::stream(answer::JSON, call.shutdown, Box::pin(stream::once(line))))
}

async fn logs(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let request = LogsRequest {
        stdout: query.boolean("stdout"),
        stderr: query.boolean("stderr"),
        follow: query.boolean("follow"),
        // Docker takes what isn't a number for all lines, too.
        tail: query.text("tail").parse().ok(),
        since: query.timestamp("since")?,
        // 0 is no end.
        until: query.timestamp("until")?.filter(|until| *until != jiff::Timestamp::UNIX_EPOCH),
        timestamps: query.boolean("timestamps"),
        details: query.boolean("details"),
    };
    if !request.stdout && !request.stderr {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let logs = call.engine.logs(call.name(), request).await?;
    Ok(answer::stream(hijack::stream_type(logs.tty, call.version), call.shutdown, logs.stream))
}

async fn stats(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let stream = query.boolean_or("stream", true);
    let samples = call.engine.stats(call.name(), stream, query.boolean("one-shot")).await?;
    let version = call.version;
    let lines = samples.map(move |sample| sample.map(|sample| adapt::stats(&sample, version)));
    Ok(answer::stream(answer::JSON, call.shutdown, Box::pin(lines)))
}
