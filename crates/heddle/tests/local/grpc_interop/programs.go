// Package programs names what is built here: gRPC's own programs, by which its languages prove to each
// other that they speak the same.
package programs

import (
	_ "google.golang.org/grpc/interop/client"
	_ "google.golang.org/grpc/interop/server"
)
