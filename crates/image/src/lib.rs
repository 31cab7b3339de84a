//! Images: import, load, save, list, inspect, tag, remove.
