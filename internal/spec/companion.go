package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// Companions are the names of the companions that are part of Mammoth. A framework package with a companion has another name.
func Companions() []string { return []string{"dns", "haproxy", "nginx", "zookeeper"} }

// NoCompanion says that a zone has no companion of a name, and what to do. p is the framework package of that name, nil if none is installed.
func NoCompanion(name string, p *apiv1.FrameworkPackage) string {
	if p == nil {
		return fmt.Sprintf("no companion is named %s: Mammoth has %s, and no framework package of that name is installed; \"mammoth framework install FILE\" installs one",
			quoted(name), strings.Join(Companions(), ", "))
	}
	return fmt.Sprintf("the framework package %s brings no companion; \"mammoth framework ls\" lists those that do", name)
}

// Flag is the flag by which a companion reads an option: tlsListen is --tls-listen. The values of a list are separated by commas.
func Flag(option string, values ...string) string {
	dashed := capital.ReplaceAllStringFunc(option, func(letter string) string { return "-" + strings.ToLower(letter) })
	return "--" + dashed + "=" + strings.Join(values, ",")
}

var (
	capital    = regexp.MustCompile(`[A-Z]`)
	optionName = regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`)
)

// RunCompanion has a role run the companion of a framework package: it fills in the program with the role's options as flags, and what
// the role leaves to the package. The error is of type Faults.
func RunCompanion(role *apiv1.RoleSpec, p *apiv1.FrameworkPackage) error {
	c := &checker{role: role.GetName()}
	if role.GetImage() != "" && role.GetImageDigest() == "" { // a person has named it
		c.fail("image", "the role runs the companion %s, whose program its package brings; take the image out", p.GetName())
	}
	kind, options := p.GetCompanion(), role.GetCompanion().GetOptions().GetFields()
	args := slices.Clone(kind.GetArgs())
	for _, name := range sortedNames(options) {
		if !optionName.MatchString(name) {
			c.failAt([]string{"companion", p.GetName(), name}, "%s cannot be an option of a companion, which is a name as in tlsListen", quoted(name))
			continue
		}
		values, ok := flagValues(options[name])
		if !ok {
			c.failAt([]string{"companion", p.GetName(), name},
				"%s must be a text, a number, true or false, or a list of those without commas: the companion reads it as a flag", name)
		}
		args = append(args, Flag(name, values...))
	}
	if len(c.faults) > 0 {
		return c.faults
	}
	role.Companion.Version = p.GetVersion()
	role.Image, role.ImageDigest, role.Command, role.Args = Pinned(kind.GetImage(), kind.GetImageDigest()), kind.GetImageDigest(), slices.Clone(kind.GetCommand()), nil
	if len(args) > 0 {
		SetArgs(role, args)
	}
	if role.GetResources() == nil {
		role.Resources = proto.CloneOf(kind.GetResources())
	}
	if role.GetHealth() == nil {
		role.Health = proto.CloneOf(kind.GetHealth())
	}
	return nil
}

func sortedNames(options map[string]*structpb.Value) []string {
	var names []string
	for name := range options {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// flagValues are the texts of an option, and whether a flag can have it.
func flagValues(option *structpb.Value) ([]string, bool) {
	switch kind := option.GetKind().(type) {
	case *structpb.Value_StringValue:
		return []string{kind.StringValue}, true
	case *structpb.Value_BoolValue:
		return []string{strconv.FormatBool(kind.BoolValue)}, true
	case *structpb.Value_NumberValue:
		return []string{strconv.FormatFloat(kind.NumberValue, 'f', -1, 64)}, true
	case *structpb.Value_ListValue:
		var all []string
		for _, item := range kind.ListValue.GetValues() {
			one, ok := flagValues(item)
			if _, nested := item.GetKind().(*structpb.Value_ListValue); !ok || nested || strings.Contains(one[0], ",") {
				return nil, false
			}
			all = append(all, one[0])
		}
		return all, true
	}
	return nil, false
}

// checkCompanion checks the companion of a framework package that a role runs.
func (c *checker) checkCompanion(kind apiv1.AppSpec_Kind, companion *apiv1.Companion) {
	if companion == nil {
		return
	}
	if kind != apiv1.AppSpec_COMPANION {
		c.fail("companion", "only a companion app can have a companion; set kind: companion")
	}
	if err := CheckName("a companion", companion.GetPackage()); err != nil {
		c.fail("companion", "%v", err)
		return
	}
	c.plain("companion", "the version of the companion", companion.GetVersion(), MaxName)
	c.within("companion", func() { c.structure(companion.GetPackage(), companion.GetOptions()) })
}

// checkCompanionKind checks the companion that a framework package brings.
func (c *checker) checkCompanionKind(p *apiv1.FrameworkPackage) {
	kind := p.GetCompanion()
	if kind == nil {
		return
	}
	if slices.Contains(Companions(), p.GetName()) {
		c.fail("name", "%s is the name of a companion that is part of Mammoth; choose another", p.GetName())
	}
	c.checkKind("companion", startedKind{kind.GetImage(), kind.GetImageDigest(), kind.GetCommand(), kind.GetArgs()})
	if kind.GetResources() != nil {
		c.checkKindResources("companion", kind.GetResources())
	}
	c.within("companion", func() { c.checkHealth(&apiv1.RoleSpec{Health: kind.GetHealth()}) })
	c.checkSchemaSize("companion.options", kind.GetOptions())
	c.within("companion", func() { c.structure("options", kind.GetOptions()) })
}
