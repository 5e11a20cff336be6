//! A throwaway single-node Kubernetes made of real parts.
