//! `/containers/{name}/exec` and `/exec/…`.

use hyper::{Response, StatusCode};
use ponton_api::exec::{ExecCreateRequest, ExecCreateResponse, ExecStartRequest};

use crate::answer::{self, Answer, Body};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::hijack::{self, Hijack, Order};
use crate::router::routes;

routes! {
    POST "/containers/{name}/exec" => create,
    POST "/exec/{name}/start" => start,
    POST "/exec/{name}/resize" => resize,
    GET "/exec/{name}/json" => inspect,
}

async fn create(mut call: Call) -> Result<Response<Body>> {
    let request: ExecCreateRequest = call.json().await?;
    if request.cmd.as_deref().unwrap_or_default().is_empty() {
        return Err(Error::invalid("No exec command specified"));
    }
    let id = call.engine.exec_create(call.name(), request).await?;
    Ok(answer::json(StatusCode::CREATED, &ExecCreateResponse { id }))
}

async fn start(mut call: Call) -> Result<Answer> {
    let request: ExecStartRequest = call.json().await?;
    if request.detach {
        call.engine.exec_start(call.name(), request, None).await?;
        return Ok(answer::empty(StatusCode::OK).into());
    }
    let info = call.engine.exec_info(call.name(), &request).await?;
    let upgrade = Hijack::is_upgrade(&call.headers);
    let content_type = hijack::stream_type(info.tty, call.version);
    let hand_over: hijack::HandOver = Box::new(move |connection| {
        Box::pin(async move { call.engine.exec_start(call.name(), request, Some(connection)).await })
    });
    Ok(Answer::Hijack(Hijack { upgrade, content_type, order: Order::AnswerFirst, hand_over }))
}

async fn resize(call: Call) -> Result<Response<Body>> {
    let query = call.query()?;
    let (rows, cols) = (query.terminal_size("h", "height")?, query.terminal_size("w", "width")?);
    call.engine.exec_resize(call.name(), rows, cols).await?;
    Ok(answer::empty(StatusCode::OK))
}

async fn inspect(call: Call) -> Result<Response<Body>> {
    Ok(answer::ok(&call.engine.exec_inspect(call.name()).await?))
}
