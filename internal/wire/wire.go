// Package wire converts the values of the core to protobuf messages and back, and errors to gRPC's.
// It owns the table of errors: which gRPC code each kind of errdefs has, and the
// sentence that a person is shown.
package wire

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/resource"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// Resources converts a vector to a message.
func Resources(schema resource.Schema, v resource.Vector) *corev1.Resources {
	message := &corev1.Resources{
		CpuMillis:   v[resource.CPU],
		MemoryBytes: v[resource.Memory],
		DiskBytes:   v[resource.Disk],
		Ports:       v[resource.Ports],
	}
	for _, name := range schema.Names() {
		index, _ := schema.Index(name)
		if v[index] == 0 {
			continue
		}
		if message.Extended == nil {
			message.Extended = map[string]int64{}
		}
		message.Extended[name] = v[index]
	}
	return message
}

// unknownResource returns an error for the first resource that the schema does not have.
func unknownResource(schema resource.Schema, message *corev1.Resources) error {
	known := append([]string{"cpu", "memory", "disk", "ports"}, schema.Names()...)
	for _, name := range slices.Sorted(maps.Keys(message.GetExtended())) {
		if _, ok := schema.Index(name); !ok {
			return fmt.Errorf("no node has a resource named %q; nodes have %s: %w", name, strings.Join(known, ", "), errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// Vector converts a message to a vector. It fails with errdefs.ErrInvalidArgument for a negative amount or an unknown
// resource.
func Vector(schema resource.Schema, message *corev1.Resources) (resource.Vector, error) {
	v := resource.Vector{
		resource.CPU:    message.GetCpuMillis(),
		resource.Memory: message.GetMemoryBytes(),
		resource.Disk:   message.GetDiskBytes(),
		resource.Ports:  message.GetPorts(),
	}
	for name, amount := range message.GetExtended() {
		index, ok := schema.Index(name)
		if !ok {
			return v, unknownResource(schema, message)
		}
		v[index] = amount
	}
	for index, amount := range v {
		if amount < 0 {
			return v, fmt.Errorf("%s must not be negative, but is %d: %w", schema.Name(index), amount, errdefs.ErrInvalidArgument)
		}
	}
	return v, nil
}
