package spec

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/internal/resource"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// DynamicDeploy is the name of the framework package that is part of Mammoth. An app that names no framework has this one. A complete
// spec names its framework, unless it is of an external app, so that its readers need no default.
const DynamicDeploy = "dynamicdeploy"

// These are the limits of a framework package. docs/design/limits.md lists them too.
const (
	// MaxSchema is the size of its schema as a message.
	MaxSchema = 64 << 10
	// MaxPackage is the size of a whole package as a message.
	MaxPackage = 128 << 10
	// MaxDepth is how deep options and schemas may be nested. They are stored inside other messages, and protobuf limits the depth
	// of a message that can be decoded.
	MaxDepth = 32
)

// FrameworkOf is the name of an app's framework package. The spec need not be complete.
func FrameworkOf(app *apiv1.AppSpec) string {
	if app.GetFramework() == "" {
		return DynamicDeploy
	}
	return app.GetFramework()
}

// HasRoles reports whether an app's spec says what its containers run, and how many there are. Of another app that is its application
// master's affair.
func HasRoles(app *apiv1.AppSpec) bool { return len(app.GetRoles()) > 0 }

// RoleName is the name of a role in its zone: "front.shop". A role without a name has that of its app.
func RoleName(app, role string) string {
	if role == "" {
		return app
	}
	return role + "." + app
}

// AppOf is the app of a role or a service by its name in the zone: shop for front.shop, and for shop.
func AppOf(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// ServiceName is the name of the service of a role; an app with one role has one service.
func ServiceName(app *apiv1.AppSpec, role *apiv1.RoleSpec) string {
	if len(app.GetRoles()) == 1 {
		return app.GetName()
	}
	return RoleName(app.GetName(), role.GetName())
}

// MainRole is the role whose service has the name of the app too: the first one that is exposed, or else the first one; nil if there is
// none.
func MainRole(app *apiv1.AppSpec) *apiv1.RoleSpec {
	roles := app.GetRoles()
	if i := slices.IndexFunc(roles, func(role *apiv1.RoleSpec) bool { return role.GetExpose() != nil }); i >= 0 {
		return roles[i]
	}
	if len(roles) == 0 {
		return nil
	}
	return roles[0]
}

// Instances is how many instances an app's spec says in all.
func Instances(app *apiv1.AppSpec) (count int32) {
	for _, role := range app.GetRoles() {
		count += role.GetInstances()
	}
	return count
}

// Pinned is the name of an image with its digest, as nodes run it. It does not change when the tag moves.
func Pinned(image, digest string) string {
	if digest == "" || image == "" {
		return image
	}
	name, _, _ := strings.Cut(image, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return name + "@" + digest
}

// checkFrameworkOf checks an app's framework and options.
func (c *checker) checkFrameworkOf(app *apiv1.AppSpec) {
	if FrameworkOf(app) == DynamicDeploy {
		if app.GetOptions() != nil {
			c.fail("options", "DynamicDeploy reads no options; remove them, or name the framework that reads them")
		}
		return
	}
	if err := CheckName("a framework", app.GetFramework()); err != nil {
		c.fail("framework", "%v", err)
	}
	if app.GetKind() != apiv1.AppSpec_APP {
		c.fail("kind", "only DynamicDeploy has apps of another kind than app; take kind out, or framework")
	}
	if len(app.GetRoles()) > 0 {
		c.fail("roles", "roles are DynamicDeploy's, and the framework is %s; say in options what it is to run", app.GetFramework())
	}
	c.structure("options", app.GetOptions())
}

// structure checks that a mapping can be stored, read again and written as JSON.
func (c *checker) structure(key string, from *structpb.Struct) {
	if from == nil {
		return
	}
	if at, wrong := unsound(structpb.NewStructValue(from), 0); wrong != "" {
		c.failAt(append([]string{key}, at...), "%s %s", strings.Join(append([]string{key}, at...), "."), wrong)
	}
}

// unsound describes what in a value is not JSON or nested too deep, and where. what is empty if nothing is.
func unsound(value *structpb.Value, depth int) (at []string, what string) {
	if depth > MaxDepth {
		return nil, fmt.Sprintf("is nested too deep; the limit is %d levels", MaxDepth)
	}
	switch kind := value.GetKind().(type) {
	case nil:
		return nil, "has no value"
	case *structpb.Value_NumberValue:
		if math.IsNaN(kind.NumberValue) || math.IsInf(kind.NumberValue, 0) {
			return nil, "is no number that JSON has"
		}
	case *structpb.Value_StructValue:
		fields := kind.StructValue.GetFields()
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			if at, what := unsound(fields[name], depth+1); what != "" {
				return append([]string{name}, at...), what
			}
		}
	case *structpb.Value_ListValue:
		for i, item := range kind.ListValue.GetValues() {
			if at, what := unsound(item, depth+1); what != "" {
				return append([]string{strconv.Itoa(i)}, at...), what
			}
		}
	}
	return nil, ""
}

// CompletePackage fills in what a framework package leaves out: resources, and settings of a health check.
func CompletePackage(p *apiv1.FrameworkPackage) {
	completeHealth(p.GetCompanion().GetHealth())
	if r := p.GetCompanion().GetResources(); r != nil {
		completeQuotas(r, instanceQuotas())
	}
	if p.GetMaster() == nil {
		return
	}
	if p.GetMaster().GetResources() == nil {
		p.Master.Resources = &corev1.Resources{}
	}
	completeQuotas(p.GetMaster().GetResources(), MasterResources())
}

// MasterResources are the resources of an application master of DynamicDeploy, and of a framework package that names none.
func MasterResources() *corev1.Resources {
	return &corev1.Resources{CpuMillis: 100, MemoryBytes: 64 << 20, DiskBytes: 32 << 20}
}

// CheckPackage checks a complete framework package and returns an error of type Faults. The zone checks the schema and the image.
func CheckPackage(p *apiv1.FrameworkPackage) error {
	c := &checker{}
	if size := proto.Size(p); size > MaxPackage {
		c.fail("", "the framework package has %s, but the limit is %s; put large values into the image, or let the program fetch them",
			resource.FormatBytes(int64(size)), resource.FormatBytes(MaxPackage))
		return c.faults
	}
	if err := CheckName("a framework", p.GetName()); err != nil {
		c.fail("name", "%v", err)
	}
	if p.GetName() == DynamicDeploy {
		c.fail("name", "%s is the name of a framework that is part of Mammoth; choose another", DynamicDeploy)
	}
	c.plain("version", "version", p.GetVersion(), MaxName)
	c.plain("description", "description", p.GetDescription(), maxText)
	switch {
	case p.GetMaster() != nil:
		c.checkMasterKind(p.GetMaster())
	case p.GetCompanion() == nil:
		c.fail("", "the framework package brings neither a master nor a companion; give it one")
	case p.GetOptions() != nil:
		c.fail("options", "options is the schema of what a master reads, and the package has no master; put that of the companion into companion")
	}
	c.checkCompanionKind(p)
	c.checkSchemaSize("options", p.GetOptions())
	c.structure("options", p.GetOptions())
	if len(c.faults) > 0 {
		return c.faults
	}
	return nil
}

// checkSchemaSize checks the size of a schema.
func (c *checker) checkSchemaSize(key string, schema *structpb.Struct) {
	if size := proto.Size(schema); size > MaxSchema {
		c.fail(key, "the schema of the options has %s, but the limit is %s", resource.FormatBytes(int64(size)), resource.FormatBytes(MaxSchema))
	}
}

func (c *checker) checkMasterKind(m *apiv1.MasterKind) {
	c.checkKind("master", startedKind{m.GetImage(), m.GetImageDigest(), m.GetCommand(), m.GetArgs()})
	for _, name := range slices.Sorted(maps.Keys(m.GetEnv())) {
		if strings.HasPrefix(name, "MAMMOTH_") {
			c.failAt([]string{"master", "env", name}, "%s in env is the ResourceManager's own; choose a name that does not begin with MAMMOTH_", quoted(name))
		}
	}
	c.within("master", func() { c.checkEnv(m.GetEnv()) })
	c.checkKindResources("master", m.GetResources())
}

// startedKind is what a master or a companion of a framework package runs.
type startedKind struct {
	image, digest string
	command, args []string
}

// checkKind checks how a framework package starts its master or its companion. The argument what is "master" or "companion".
func (c *checker) checkKind(what string, k startedKind) {
	if k.image == "" && len(k.command) == 0 {
		c.fail(what, "the %s has neither an image nor a command; give it one", what)
	}
	c.plain(what+".image", "image", k.image, MaxPath-1)
	c.plain(what+".imageDigest", "imageDigest", k.digest, maxText)
	c.words(what+".command", k.command)
	if len(k.command) > 0 && k.command[0] == "" {
		c.fail(what+".command", "command begins with an empty word")
	}
	c.words(what+".args", k.args)
}

func (c *checker) checkKindResources(what string, r *corev1.Resources) {
	c.within(what, func() {
		c.quantity(quantity{"cpu", "0.5", r.GetCpuMillis(), 1, MaxCPU, resource.FormatCPU})
		c.quantity(quantity{"memory", "256MiB", r.GetMemoryBytes(), MinMemory, MaxMemory, resource.ExactBytes})
		c.quantity(quantity{"disk", "1GiB", r.GetDiskBytes(), 1, MaxDisk, resource.ExactBytes})
	})
	if r.GetPorts() != 0 || len(r.GetExtended()) > 0 {
		c.fail(what+".resources", "a %s can have cpu, memory and disk only", what)
	}
}

// within prefixes the keys of the faults that check finds.
func (c *checker) within(key string, check func()) {
	before := len(c.faults)
	check()
	for i := range c.faults[before:] {
		c.faults[before+i].Key = append([]string{key}, c.faults[before+i].Key...)
	}
}
