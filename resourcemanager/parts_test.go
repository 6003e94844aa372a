package resourcemanager

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/containerd/errdefs"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	companionv1 "github.com/mammoth-os/mammoth/proto/mammoth/companion/v1"
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

// quiet is a registry without readers and balancers.
type quiet struct {
	apiv1.UnimplementedRegistryServer
	companionv1.UnimplementedCompanionsServer
}

func quietRegistry(int64, term.Observer) term.Registry { return quiet{} }

func (quiet) Publish(string, []*apiv1.Endpoint) int64       { return 1 }
func (quiet) Expose(string, *apiv1.Expose) int64            { return 1 }
func (quiet) AwaitBalancers(_ string, _ int64, done func()) { go done() }
func (quiet) Hold()                                         {}
func (quiet) Release()                                      {}
func (quiet) ExpectBalancer(string, time.Duration)          {}
func (quiet) AllowRegistration([]byte)                      {}
func (quiet) KnowApp(string, string)                        {}
func (quiet) AppKey(string) string                          { return "key" }
