package zone

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/wire"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
)

// units are the resources that the zone keeps account of. They translate between messages and vectors.
type units struct {
	*turn
	record *storev1.Schema
	schema resource.Schema
}

func (u *units) load(stored Records) error {
	err := loadRecords(stored, kindSchema, func(record *storev1.Schema) error {
		u.record = record
		return nil
	})
	for _, name := range u.record.GetExtended() {
		u.schema, _, _ = u.schema.With(name)
	}
	return err
}

// Vector reads resources, and makes room for an extended resource that is named for the first time.
func (u *units) Vector(message *corev1.Resources) (resource.Vector, error) {
	schema := u.schema
	for _, name := range slices.Sorted(maps.Keys(message.GetExtended())) {
		grown, _, ok := schema.With(name)
		if !ok {
			return resource.Vector{}, fmt.Errorf("the zone keeps account of %s; it has no room for %q: %w", strings.Join(schema.Names(), ", "), name, errdefs.ErrInvalidArgument)
		}
		schema = grown
	}
	v, err := wire.Vector(schema, message)
	if err != nil {
		return v, err
	}
	if schema != u.schema {
		u.schema = schema
		u.record.Extended = schema.Names()
		u.Save(kindSchema, "schema", u.record)
	}
	return v, nil
}

// read reads resources of which each has been named before.
func (u *units) read(message *corev1.Resources) (resource.Vector, error) {
	return wire.Vector(u.schema, message)
}

// known are the resources that the zone keeps account of.
func (u *units) known() resource.Schema { return u.schema }

func (u *units) Resources(v resource.Vector) *corev1.Resources { return wire.Resources(u.schema, v) }
