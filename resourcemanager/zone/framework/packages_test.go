package framework_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/zone/framework"
)

// turn is a turn of a zone. It stores records, and keeps what events say.
type turn struct {
	records map[string]*storev1.Package
	events  []string
}

func (t *turn) Now() time.Time { return time.Unix(1_700_000_100, 0) }
func (t *turn) Save(_ store.Kind, key string, record proto.Message) {
	t.records[key] = proto.CloneOf(record.(*storev1.Package))
}
func (t *turn) Forget(_ store.Kind, key string) { delete(t.records, key) }
func (t *turn) Emit(event *apiv1.Event)         { t.events = append(t.events, event.GetMessage()) }

func newTurn() *turn { return &turn{records: map[string]*storev1.Package{}} }

// load makes the packages of a zone whose ResourceManager has just started.
func load(now *turn) *framework.Packages {
	ps := framework.New(now, time.Unix(1_700_000_000, 0))
	for _, record := range now.records {
		ps.Load(record)
	}
	return ps
}

// ring is a package with a master, and edge one with a companion.
var (
	root = peer.User{Name: "root"}
	ring = &apiv1.FrameworkPackage{Name: "ring", Version: "1", Master: &apiv1.MasterKind{Command: []string{"ring"}, Ends: true}}
	edge = &apiv1.FrameworkPackage{Name: "edge", Companion: &apiv1.CompanionKind{}}
)

func install(t *testing.T, ps *framework.Packages, p *apiv1.FrameworkPackage) {
	t.Helper()
	if err := ps.Install(root, &apiv1.InstallFrameworkRequest{Package: p}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsInstalledAndRemovedOutlivesARestart(t *testing.T) {
	now := newTurn()
	ps := load(now)
	install(t, ps, ring)
	install(t, ps, ring) // the second time changes nothing that anybody has to know
	if _, err := ps.Remove(root, spec.DynamicDeploy, nil); err != nil {
		t.Fatal(err)
	}
	for _, at := range []*framework.Packages{ps, load(now)} {
		if names := at.Names(); !slices.Equal(names, []string{"ring"}) {
			t.Errorf("%v are installed, want ring", names)
		}
		if !at.Ends(&apiv1.AppSpec{Framework: "ring"}) {
			t.Error("the work of ring has no end")
		}
	}
	if err := ps.Install(root, &apiv1.InstallFrameworkRequest{BuiltIn: spec.DynamicDeploy}, nil); err != nil {
		t.Fatal(err)
	}
	if names := load(now).Names(); !slices.Equal(names, []string{spec.DynamicDeploy, "ring"}) {
		t.Errorf("%v are installed, want both", names)
	}
	if len(now.events) != 3 {
		t.Errorf("the events are %q, want three", now.events)
	}
}

func TestAPackageThatAnAppHasStays(t *testing.T) {
	ps := load(newTurn())
	install(t, ps, ring)
	install(t, ps, edge)
	circle := &apiv1.AppSpec{Name: "circle", Framework: "ring"}
	lb := &apiv1.AppSpec{Name: "lb", Roles: []*apiv1.RoleSpec{{Companion: &apiv1.Companion{Package: "edge"}}}}
	for name, app := range map[string]*apiv1.AppSpec{"ring": circle, "edge": lb} {
		if !framework.Uses(app)[name] {
			t.Errorf("%s does not use %s", app.GetName(), name)
		}
		apps := []*apiv1.AppSpec{app}
		if _, err := ps.Remove(root, name, apps); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s is removed: %v", name, err)
		}
		// What the app has of the package must stay in it.
		without := &apiv1.FrameworkPackage{Name: name}
		if err := ps.Install(root, &apiv1.InstallFrameworkRequest{Package: without}, apps); !errors.Is(err, errdefs.ErrFailedPrecondition) {
			t.Errorf("%s is replaced by one without its part: %v", name, err)
		}
		if _, err := ps.Remove(root, name, nil); err != nil {
			t.Errorf("%s is not removed when no app has it: %v", name, err)
		}
	}
}

func TestAnAppNeedsItsPackagesAndTheirParts(t *testing.T) {
	ps := load(newTurn())
	install(t, ps, edge)
	companion := func(name string) []*apiv1.RoleSpec {
		return []*apiv1.RoleSpec{{Companion: &apiv1.Companion{Package: name}}}
	}
	cases := map[string]struct {
		app  *apiv1.AppSpec
		want error
	}{
		"both are there":         {&apiv1.AppSpec{Framework: spec.DynamicDeploy, Roles: companion("edge")}, nil},
		"no such framework":      {&apiv1.AppSpec{Framework: "ring"}, errdefs.ErrFailedPrecondition},
		"it brings no master":    {&apiv1.AppSpec{Framework: "edge"}, errdefs.ErrFailedPrecondition},
		"no such companion":      {&apiv1.AppSpec{Framework: spec.DynamicDeploy, Roles: companion("proxy")}, errdefs.ErrFailedPrecondition},
		"it brings no companion": {&apiv1.AppSpec{Framework: spec.DynamicDeploy, Roles: companion(spec.DynamicDeploy)}, errdefs.ErrFailedPrecondition},
	}
	for name, c := range cases {
		if err := ps.Check(c.app); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestAnImageThatAPackageUsesKeepsItsName(t *testing.T) {
	ps := load(newTurn())
	install(t, ps, &apiv1.FrameworkPackage{Name: "ring", Master: &apiv1.MasterKind{Image: "ring:1", ImageDigest: "sha256:aa"}})
	if err := ps.ImageUnused("ring:1", "sha256:aa"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("the name of the image in use: %v", err)
	}
	for name, digest := range map[string]string{"ring:2": "sha256:aa", "ring:1": "sha256:bb"} {
		if err := ps.ImageUnused(name, digest); err != nil {
			t.Errorf("%s of %s: %v", name, digest, err)
		}
	}
}
