fn main(){ ponton_network::probe::run(std::env::args().nth(1).map_or(100,|a|a.parse().unwrap())) }
