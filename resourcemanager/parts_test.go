package resourcemanager

import (
	"context"
	"fmt"
	"net/http"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/companions/registry/registrytest"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/images"
	"github.com/mammoth-os/mammoth/resourcemanager/term"
)

// shelf is an image store with images that say a command.
type shelf map[string]images.Config

func (s shelf) Resolve(_ context.Context, name string) (string, images.Config, error) {
	config, ok := s[name]
	if !ok {
		return "", images.Config{}, fmt.Errorf("no image is named %q: %w", name, errdefs.ErrNotFound)
	}
	return "sha256:" + name, config, nil
}
func (s shelf) List(context.Context) ([]*apiv1.Image, error)            { return nil, nil }
func (s shelf) StoredBytes() (int64, error)                             { return 0, nil }
func (s shelf) Remove(context.Context, string) (freed int64, err error) { return 0, nil }
func (s shelf) Handler() http.Handler                                   { return http.NotFoundHandler() }

// board makes the registry of a term that the test does not look into.
func board(epoch int64, _ term.Observer) term.Registry { return registrytest.NewBoard(epoch) }
