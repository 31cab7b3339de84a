//! Networks, endpoints, published ports.
