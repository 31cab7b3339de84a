//! The routes, by noun. Handlers read the request, call the engine once, and shape the answer.

mod container;
mod exec;
mod image;
mod network;
mod registry;
mod stream;
mod system;
mod unbuilt;
mod volume;

use crate::router::Route;

/// All routes, in the order in which they are tried.
pub(crate) fn routes() -> impl Iterator<Item = &'static Route> {
    [
        system::ROUTES,
        container::ROUTES,
        stream::ROUTES,
        exec::ROUTES,
        registry::ROUTES,
        image::ROUTES,
        network::ROUTES,
        volume::ROUTES,
        unbuilt::ROUTES,
    ]
    .into_iter()
    .flatten()
}
