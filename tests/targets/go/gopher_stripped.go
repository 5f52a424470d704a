// flags: -ldflags=-s gopher.go
// The same without symbols. It is built again when this file changes, not gopher.go.
package main
