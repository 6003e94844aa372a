// Package framework keeps the framework packages that are installed in a zone: how the masters of apps are started, whether their work has
// an end, and which companions there are.
//
// Words:
//   - built in: part of Mammoth, and there unless somebody has removed it
package framework

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mammoth-os/mammoth/internal/distribution"
	"github.com/mammoth-os/mammoth/internal/id"
	"github.com/mammoth-os/mammoth/internal/peer"
	"github.com/mammoth-os/mammoth/internal/sentence"
	specs "github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
	storev1 "github.com/mammoth-os/mammoth/proto/mammoth/store/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/access"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
)

// KindPackage is the kind of the records of packages.
const KindPackage store.Kind = "package"

// maxPackages is how many framework packages a zone may have.
const maxPackages = 100

// builtIn are the framework packages that are part of Mammoth. A zone has each of them that nobody has removed: the record of a removal
// is what is stored. So a zone of before there were packages has them too, and a newer Mammoth brings its newer ones.
func builtIn() map[string]*apiv1.FrameworkPackage {
	return map[string]*apiv1.FrameworkPackage{
		specs.DynamicDeploy: {
			Name:        specs.DynamicDeploy,
			Description: "keeps instances of images running, and replaces them version by version",
			Master:      &apiv1.MasterKind{Command: []string{"mammoth", "appmaster", "dynamicdeploy"}, Resources: specs.MasterResources(), Previews: true},
		},
	}
}

// Turn is the present turn of the zone. None of its methods fails.
type Turn interface {
	Now() time.Time
	// Save has a record stored with the turn, Forget has it removed.
	Save(kind store.Kind, key string, record proto.Message)
	Forget(kind store.Kind, key string)
	// Emit adds an event to the turn.
	Emit(event *apiv1.Event)
}

// Packages are the framework packages that are installed.
type Packages struct {
	turn Turn
	// since is when the zone was made, and the built-in packages with it.
	since time.Time
	// builtIn are those that are part of Mammoth. byName has the records, also those of built-in ones that were removed.
	builtIn map[string]*apiv1.FrameworkPackage
	byName  map[string]*storev1.Package
}

// New makes the packages of a zone in which nobody has installed or removed any. since is when the zone was made.
func New(turn Turn, since time.Time) *Packages {
	return &Packages{turn: turn, since: since, builtIn: builtIn(), byName: map[string]*storev1.Package{}}
}

// Load takes in a stored record.
func (ps *Packages) Load(record *storev1.Package) { ps.byName[record.GetPackage().GetName()] = record }

// Named is the package with a name; nil if it is not installed.
func (ps *Packages) Named(name string) *apiv1.FrameworkPackage {
	record, stored := ps.byName[name]
	switch {
	case record.GetRemoved():
		return nil
	case stored:
		return record.GetPackage()
	}
	return ps.builtIn[name]
}

// Of is the package of an app; nil if it is not installed, or if the app's master is outside of the zone.
func (ps *Packages) Of(spec *apiv1.AppSpec) *apiv1.FrameworkPackage {
	return ps.Named(spec.GetFramework())
}

// Ends reports whether the work of an app has an end, which its master says.
func (ps *Packages) Ends(spec *apiv1.AppSpec) bool { return ps.Of(spec).GetMaster().GetEnds() }

// Resources are those of a master of an app.
func (ps *Packages) Resources(spec *apiv1.AppSpec) *corev1.Resources {
	if resources := ps.Of(spec).GetMaster().GetResources(); resources != nil {
		return resources
	}
	return specs.MasterResources()
}

// Container is what a node launches as the master of an app, with more in its environment; nil if the package is not installed.
func (ps *Packages) Container(app *apiv1.AppSpec, env map[string]string) *corev1.ContainerSpec {
	kind := ps.Of(app).GetMaster()
	if kind == nil {
		return nil
	}
	spec := &corev1.ContainerSpec{
		Runtime: corev1.ContainerSpec_PROCESS, Command: kind.GetCommand(), Args: kind.GetArgs(), Env: map[string]string{},
		Labels: map[string]string{"mammoth.role": "master"},
	}
	if kind.GetImage() != "" {
		// It has to reach the ResourceManager and the nodes.
		spec.Runtime, spec.Image, spec.Network = corev1.ContainerSpec_DOCKER, specs.Pinned(kind.GetImage(), kind.GetImageDigest()), corev1.ContainerSpec_HOST
	}
	maps.Copy(spec.Env, kind.GetEnv())
	maps.Copy(spec.Env, env)
	return spec
}

// Check refuses a spec whose framework is not installed, or that runs the companion of one that is not.
func (ps *Packages) Check(spec *apiv1.AppSpec) error {
	switch p := ps.Of(spec); {
	case p == nil:
		return fmt.Errorf("%s: %w", ps.NotInstalled(spec), errdefs.ErrFailedPrecondition)
	case p.GetMaster() == nil:
		return fmt.Errorf("the framework package %s brings a companion and no application master; take the framework out, and run it with \"kind: companion\" and \"companion: %s\": %w",
			p.GetName(), p.GetName(), errdefs.ErrFailedPrecondition)
	}
	for _, role := range spec.GetRoles() {
		if name := role.GetCompanion().GetPackage(); name != "" && ps.Named(name).GetCompanion() == nil {
			return fmt.Errorf("%s: %w", specs.NoCompanion(name, ps.Named(name)), errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// Uses are the packages that an app has: that of its master, and those of its companions.
func Uses(spec *apiv1.AppSpec) map[string]bool {
	used := map[string]bool{}
	if framework := spec.GetFramework(); framework != "" {
		used[framework] = true
	}
	for _, role := range spec.GetRoles() {
		if companion := role.GetCompanion(); companion != nil {
			used[companion.GetPackage()] = true
		}
	}
	return used
}

// checkParts refuses a package without a part that an app has.
func checkParts(given *apiv1.FrameworkPackage, apps []*apiv1.AppSpec) error {
	for _, spec := range apps {
		part := ""
		switch {
		case spec.GetFramework() == given.GetName() && given.GetMaster() == nil:
			part = "application master"
		case given.GetCompanion() == nil && slices.ContainsFunc(spec.GetRoles(), func(r *apiv1.RoleSpec) bool { return r.GetCompanion().GetPackage() == given.GetName() }):
			part = "companion"
		default:
			continue
		}
		return fmt.Errorf("the app %s has the %s that the package does not bring any more; remove the app first: %w", spec.GetName(), part, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// NotInstalled says that the framework of a spec is missing, and what to do.
func (ps *Packages) NotInstalled(spec *apiv1.AppSpec) string {
	from := "FILE"
	if ps.builtIn[spec.GetFramework()] != nil {
		from = spec.GetFramework()
	}
	return fmt.Sprintf("the framework %s is not installed in this zone; \"mammoth framework install %s\" installs it", spec.GetFramework(), from)
}

// NameOf is the name of the package that is to be installed.
func NameOf(request *apiv1.InstallFrameworkRequest) string {
	if request.GetBuiltIn() != "" {
		return request.GetBuiltIn()
	}
	return request.GetPackage().GetName()
}

// Install adds a package, or replaces the one of its name. It was checked and is complete; apps are those that have it, for their masters or
// for a companion.
func (ps *Packages) Install(who peer.User, request *apiv1.InstallFrameworkRequest, apps []*apiv1.AppSpec) error {
	given, name := request.GetPackage(), NameOf(request)
	before := ps.Named(name)
	if given == nil {
		if ps.builtIn[name] == nil {
			return fmt.Errorf("no framework named %q is part of Mammoth; %s is, and others are installed from a file: %w", name, specs.DynamicDeploy, errdefs.ErrNotFound)
		}
		delete(ps.byName, name)
		ps.turn.Forget(KindPackage, name)
	} else {
		if err := checkParts(given, apps); err != nil {
			return err
		}
		if before == nil && len(ps.Names()) >= maxPackages {
			return fmt.Errorf("a zone has %d framework packages at most; remove one that no app has, see \"mammoth framework ls\": %w", maxPackages, errdefs.ErrResourceExhausted)
		}
		ps.byName[name] = &storev1.Package{Package: given, InstalledAt: timestamppb.New(ps.turn.Now()), User: who.Name}
		ps.turn.Save(KindPackage, name, ps.byName[name])
	}
	if before == nil || !proto.Equal(before, ps.Named(name)) {
		ps.turn.Emit(&apiv1.Event{Kind: "zone", To: "FRAMEWORK_INSTALLED", Message: fmt.Sprintf("%s installed the framework package %s", access.ByWhom(who), versioned(ps.Named(name)))})
	}
	return nil
}

// Remove takes a package away that no app has. It returns it as it was.
func (ps *Packages) Remove(who peer.User, name string, apps []*apiv1.AppSpec) (*apiv1.Framework, error) {
	view, err := ps.View(name, len(apps))
	if err != nil {
		return nil, err
	}
	if len(apps) > 0 {
		var names []string
		for _, spec := range apps {
			names = append(names, spec.GetName())
		}
		return nil, fmt.Errorf("the framework package %s is in use by %s; remove %s first: %w", name, sentence.Names(names), itOrThem(len(names)), errdefs.ErrFailedPrecondition)
	}
	delete(ps.byName, name)
	ps.turn.Forget(KindPackage, name)
	if ps.builtIn[name] != nil {
		ps.byName[name] = &storev1.Package{Package: &apiv1.FrameworkPackage{Name: name}, Removed: true}
		ps.turn.Save(KindPackage, name, ps.byName[name])
	}
	ps.turn.Emit(&apiv1.Event{Kind: "zone", To: "FRAMEWORK_REMOVED", Message: fmt.Sprintf("%s removed the framework package %s", access.ByWhom(who), versioned(view.GetPackage()))})
	return view, nil
}

func itOrThem(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}

func versioned(p *apiv1.FrameworkPackage) string {
	if p.GetVersion() == "" {
		return p.GetName()
	}
	return p.GetName() + " " + p.GetVersion()
}

// Names are those of the installed packages, in their order.
func (ps *Packages) Names() []string {
	names := id.SortedKeys(ps.byName)
	for name := range ps.builtIn {
		if ps.byName[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool { return ps.Named(name) == nil })
}

// View is a package as people see it, with how many apps have it. They must not change it.
func (ps *Packages) View(name string, apps int) (*apiv1.Framework, error) {
	p := ps.Named(name)
	if p == nil {
		return nil, fmt.Errorf("no framework package is named %q; \"mammoth framework ls\" lists those that are installed: %w", name, errdefs.ErrNotFound)
	}
	view := &apiv1.Framework{Package: p, Apps: int32(apps), BuiltIn: ps.builtIn[name] != nil}
	if record := ps.byName[name]; record != nil {
		view.InstalledAt, view.User = record.GetInstalledAt(), record.GetUser()
	} else {
		view.InstalledAt = timestamppb.New(ps.since)
	}
	return view, nil
}

// ImageUnused refuses to take a name from an image that a package uses by that name.
func (ps *Packages) ImageUnused(name, digest string) error {
	for _, framework := range id.SortedKeys(ps.byName) {
		p := ps.byName[framework].GetPackage()
		has := func(image, of string) bool {
			return of == digest && digest != "" && distribution.Tagged(image) == distribution.Tagged(name)
		}
		if has(p.GetMaster().GetImage(), p.GetMaster().GetImageDigest()) || has(p.GetCompanion().GetImage(), p.GetCompanion().GetImageDigest()) {
			return fmt.Errorf("the framework package %s uses image %s; remove the package, or install it with another image, first: %w", framework, name, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}
