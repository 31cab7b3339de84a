//! The routes, by noun. Handlers read the request, call the engine once, and shape the answer.

mod checkpoint;
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

/// Pulls and pushes: nobody wants them when their client has gone, and they leave nothing half-done.
pub(crate) const ENDING_WITH_CLIENT: &[&str] = &["/images/create", "/images/{name*}/push"];

/// All routes, in the order in which they are tried.
pub(crate) fn routes() -> impl Iterator<Item = &'static Route> {
    [
        system::ROUTES,
        container::ROUTES,
        checkpoint::ROUTES,
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
