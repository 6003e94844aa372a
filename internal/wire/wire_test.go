package wire_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/wire"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

func TestResourcesReadBack(t *testing.T) {
	schema, gpu, _ := resource.Schema{}.With("gpu")
	v := resource.Vector{resource.CPU: 500, resource.Memory: 64 << 20, resource.Disk: 1, resource.Ports: 2}
	v[gpu] = 3
	if got, err := wire.Vector(schema, wire.Resources(schema, v)); err != nil || got != v {
		t.Errorf("got %v, %v; want %v", got, err, v)
	}
}

func TestBadResourcesAreRefused(t *testing.T) {
	for _, message := range []*corev1.Resources{{CpuMillis: -1}, {Extended: map[string]int64{"gpu": 1}}} {
		if _, err := wire.Vector(resource.Schema{}, message); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%v: got %v, want an invalid argument", message, err)
		}
	}
}

func TestAnErrorKeepsItsClassAndSentenceOverTheWire(t *testing.T) {
	err := wire.Status(fmt.Errorf("no app is named %q: %w", "web", errdefs.ErrNotFound))
	if status.Code(err) != codes.NotFound {
		t.Errorf("code %v", status.Code(err))
	}
	back := wire.Error(err)
	if !errors.Is(back, errdefs.ErrNotFound) || back.Error() != `no app is named "web"` {
		t.Errorf("came back as %v", back)
	}
}

// A sentence that repeats what somebody sent keeps its beginning and its end, and can be sent whatever is in it.
func TestLongSentencesAreCutInTheMiddle(t *testing.T) {
	for _, class := range []error{errdefs.ErrNotFound, errors.New("unknown")} {
		said := status.Convert(wire.Status(fmt.Errorf("no app is named %s; look again: %w", strings.Repeat("ä\xff", 1<<20), class))).Message()
		if len(said) > 4200 || !utf8.ValidString(said) || !strings.HasPrefix(said, "no app is named ä") || !strings.Contains(said, "; look again") {
			t.Errorf("%d bytes: %.40q … %.40q", len(said), said, said[max(0, len(said)-40):])
		}
	}
}

func TestSentencesEndInWords(t *testing.T) {
	engine := fmt.Errorf("engine: no such signal SIGFOO: %w", errdefs.ErrInternal)
	for _, err := range []error{
		engine, fmt.Errorf("%w: %w", engine, errdefs.ErrUnknown), errors.Join(errors.New("engine: no such signal SIGFOO"), errdefs.ErrInternal),
		fmt.Errorf("%w: %w", engine, errdefs.ErrNotFound),
	} {
		if got := wire.Sentence(err); got != "engine: no such signal SIGFOO" {
			t.Errorf("%q became %q", err, got)
		}
	}
	if got := wire.Sentence(errdefs.ErrInternal); got != "internal" {
		t.Errorf("a bare class became %q", got)
	}
}

func TestARefusalIsReadBack(t *testing.T) {
	for _, class := range []error{errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition, errdefs.ErrNotFound} {
		err := wire.Refused(wire.Refusal(fmt.Errorf("not so: %w", class)))
		if !errors.Is(err, class) || err.Error() != "not so" {
			t.Errorf("%v is read back as %v", class, err)
		}
	}
	if err := wire.Refused(0, ""); err != nil {
		t.Errorf("no refusal is read back as %v", err)
	}
}
