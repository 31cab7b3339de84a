//! What Docker's API has and Ponton has not: each says so, by name.
#![expect(clippy::unused_async, reason = "handlers have one type")]

use hyper::{Response, StatusCode};

use crate::answer::{self, Body};
use crate::call::Call;
use crate::error::{Error, Result};
use crate::router::routes;

/// A handler that refuses.
macro_rules! unbuilt {
    ($($name:ident $what:literal;)*) => {$(
        async fn $name(_call: Call) -> Result<Response<Body>> {
            Err(Error::not_implemented(concat!($what, " is not implemented")))
        }
    )*};
}

unbuilt! {
    build "building images";
    network "making, changing and removing networks";
    session "BuildKit's session";
    swarm "swarm mode";
    plugin "installing and changing plugins";
}

/// There are none, so that is all of them.
async fn no_plugins(call: Call) -> Result<Response<Body>> {
    let filters = call.query()?.filters()?;
    filters.check_known(&["capability", "enabled"]).map_err(|error| Error::invalid(error.to_string()))?;
    Ok(answer::ok::<[(); 0]>(&[]))
}

/// `docker inspect` asks for a plugin last, and says "no such object" when that isn't found either.
async fn no_such_plugin(call: Call) -> Result<Response<Body>> {
    Err(Error::new(StatusCode::NOT_FOUND, format!("plugin {:?} not found", call.name())))
}

routes! {
    POST "/build" => build,
    POST "/build/prune" => build,
    POST "/build/cancel" => build,
    POST "/networks/create" => network,
    POST "/networks/{name}/connect" => network,
    POST "/networks/{name}/disconnect" => network,
    DELETE "/networks/{name}" => network,
    POST "/session" => session,
    POST "/grpc" => session,
    GET "/swarm" => swarm,
    GET "/swarm/unlockkey" => swarm,
    POST "/swarm/{name}" => swarm,
    GET "/nodes" => swarm,
    GET "/nodes/{name}" => swarm,
    DELETE "/nodes/{name}" => swarm,
    POST "/nodes/{name}/update" => swarm,
    GET "/services" => swarm,
    POST "/services/create" => swarm,
    GET "/services/{name}" => swarm,
    DELETE "/services/{name}" => swarm,
    POST "/services/{name}/update" => swarm,
    GET "/services/{name}/logs" => swarm,
    GET "/tasks" => swarm,
    GET "/tasks/{name}" => swarm,
    GET "/tasks/{name}/logs" => swarm,
    GET "/secrets" => swarm,
    POST "/secrets/create" => swarm,
    GET "/secrets/{name}" => swarm,
    DELETE "/secrets/{name}" => swarm,
    POST "/secrets/{name}/update" => swarm,
    GET "/configs" => swarm,
    POST "/configs/create" => swarm,
    GET "/configs/{name}" => swarm,
    DELETE "/configs/{name}" => swarm,
    POST "/configs/{name}/update" => swarm,
    GET "/plugins" => no_plugins,
    GET "/plugins/privileges" => plugin,
    POST "/plugins/pull" => plugin,
    POST "/plugins/create" => plugin,
    GET "/plugins/{name*}/json" => no_such_plugin,
    DELETE "/plugins/{name*}" => plugin,
    POST "/plugins/{name*}/enable" => plugin,
    POST "/plugins/{name*}/disable" => plugin,
    POST "/plugins/{name*}/push" => plugin,
    POST "/plugins/{name*}/set" => plugin,
    POST "/plugins/{name*}/upgrade" => plugin,
}
