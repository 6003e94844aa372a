package manifest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	corev1 "github.com/mammoth-os/mammoth/proto/mammoth/core/v1"
)

// ParseFramework reads a framework package:
//
//	name: ring
//	version: "1"
//	description: keeps a ring of workers
//	master: {command: [ring], resources: {cpu: 100m}}
//	options: {type: object, properties: {workers: {type: integer}}}
//	companion: {command: [ring-proxy], options: {type: object, properties: {listen: {type: string}}}}
//
// The error is of type Errors. The zone checks the schema of the options and the image.
func ParseFramework(data []byte) (*apiv1.FrameworkPackage, error) {
	d := &decoder{}
	root := d.document(data, "one framework package")
	if root == nil || refuseOther(d, root, frameworkFile) {
		return nil, d.err()
	}
	p := &apiv1.FrameworkPackage{}
	present := d.object(root, "a framework package", fields{
		"name":        d.text("name", &p.Name),
		"version":     d.text("version", &p.Version),
		"description": d.text("description", &p.Description),
		"master":      func(n *yaml.Node) { p.Master = readMasterKind(d, n) },
		"options":     readStructure(d, "options", &p.Options),
		"companion":   func(n *yaml.Node) { p.Companion = companionKind(d, n) },
	})
	d.require(root, present, "the framework package", "name")
	whole := proto.CloneOf(p)
	spec.CompletePackage(whole)
	var faults spec.Faults
	if d.mistakes() == 0 && errors.As(spec.CheckPackage(whole), &faults) {
		addFaults(d, root, faults)
	}
	return p, d.err()
}

func readMasterKind(d *decoder, n *yaml.Node) *apiv1.MasterKind {
	m := &apiv1.MasterKind{Resources: &corev1.Resources{}}
	env := &apiv1.RoleSpec{}
	d.object(n, "master", fields{
		"image":     d.text("image", &m.Image),
		"command":   d.texts("command", &m.Command),
		"args":      d.texts("args", &m.Args),
		"env":       func(n *yaml.Node) { readEnv(d, n, env) },
		"resources": func(n *yaml.Node) { kindResources(d, n, m.Resources) },
		"ends":      d.flag("ends", &m.Ends),
		"previews":  d.flag("previews", &m.Previews),
	})
	m.Env = env.GetEnv()
	return m
}

func companionKind(d *decoder, n *yaml.Node) *apiv1.CompanionKind {
	k := &apiv1.CompanionKind{}
	d.object(n, "companion", fields{
		"image":   d.text("image", &k.Image),
		"command": d.texts("command", &k.Command),
		"args":    d.texts("args", &k.Args),
		"health":  func(n *yaml.Node) { k.Health = readHealth(d, n) },
		"options": readStructure(d, "options", &k.Options),
		"resources": func(n *yaml.Node) {
			k.Resources = &corev1.Resources{}
			kindResources(d, n, k.Resources)
		},
	})
	return k
}

// kindResources decodes the resources of a master or a companion.
func kindResources(d *decoder, n *yaml.Node, into *corev1.Resources) {
	d.object(n, "resources", fields{
		"cpu":    d.quantity("cpu", resource.ParseCPU, &into.CpuMillis),
		"memory": d.quantity("memory", resource.ParseBytes, &into.MemoryBytes),
		"disk":   d.quantity("disk", resource.ParseBytes, &into.DiskBytes),
	})
}

// readFramework decodes an app of another framework than DynamicDeploy. It refuses keys of roles in present.
func readFramework(d *decoder, present map[string]*yaml.Node, roleKeys []string) {
	for _, key := range slices.Concat(roleKeys, []string{"roles"}) {
		if n := present[key]; n != nil {
			d.fail(n, "%q is a key of DynamicDeploy, but the framework is %s; put its settings under options", key, present["framework"].Value)
		}
	}
}

// readStructure decodes a mapping of JSON values.
func readStructure(d *decoder, what string, into **structpb.Struct) rule {
	return func(n *yaml.Node) {
		if n.Kind != yaml.MappingNode {
			d.fail(n, "%s must be a mapping of keys to values, not %s", what, kindOf(n))
			return
		}
		*into = readValue(d, n, what, 0).GetStructValue()
	}
}

// readValue decodes a JSON value.
func readValue(d *decoder, n *yaml.Node, what string, depth int) *structpb.Value {
	switch {
	case depth > spec.MaxDepth:
		d.fail(n, "%s is nested too deep; the limit is %d levels", what, spec.MaxDepth)
		return structpb.NewNullValue()
	case n.Kind == yaml.MappingNode:
		all := &structpb.Struct{Fields: map[string]*structpb.Value{}}
		d.entries(n, what, func(name string, _, value *yaml.Node) { all.Fields[name] = readValue(d, value, name, depth+1) })
		return structpb.NewStructValue(all)
	case n.Kind == yaml.SequenceNode:
		all := &structpb.ListValue{}
		d.list(n, what, func(n *yaml.Node) { all.Values = append(all.Values, readValue(d, n, "an item of "+what, depth+1)) })
		return structpb.NewListValue(all)
	}
	switch n.Tag {
	case "!!null":
		return structpb.NewNullValue()
	case "!!bool":
		return structpb.NewBoolValue(strings.EqualFold(n.Value, "true"))
	case "!!int", "!!float":
		number, err := exact(n)
		if err != nil {
			d.fail(n, "%s %v", what, err)
		}
		return structpb.NewNumberValue(number)
	}
	return structpb.NewStringValue(n.Value)
}

// exact decodes a number that JSON can represent exactly.
func exact(n *yaml.Node) (float64, error) {
	var number float64
	if err := n.Decode(&number); err != nil || math.IsNaN(number) || math.IsInf(number, 0) {
		return 0, fmt.Errorf("is %s, which is no number that JSON has", kindOf(n))
	}
	var whole int64
	if n.Tag == "!!int" && (n.Decode(&whole) != nil || whole > 1<<53 || whole < -1<<53) {
		return 0, fmt.Errorf("is %s, and JSON keeps whole numbers up to 2^53; put it in quotation marks", kindOf(n))
	}
	return number, nil
}

// structure writes a mapping of JSON values.
func (m *mapping) structure(key string, from *structpb.Struct) {
	if from != nil {
		m.add(key, valueNode(structpb.NewStructValue(from)))
	}
}

func valueNode(value *structpb.Value) *yaml.Node {
	switch kind := value.GetKind().(type) {
	case *structpb.Value_StructValue:
		node := &yaml.Node{Kind: yaml.MappingNode}
		for _, name := range keys(kind.StructValue.GetFields()) {
			node.Content = append(node.Content, scalar("!!str", name), valueNode(kind.StructValue.GetFields()[name]))
		}
		return node
	case *structpb.Value_ListValue:
		node := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, item := range kind.ListValue.GetValues() {
			node.Content = append(node.Content, valueNode(item))
		}
		return node
	case *structpb.Value_BoolValue:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(kind.BoolValue)}
	case *structpb.Value_NumberValue:
		if n := kind.NumberValue; n == math.Trunc(n) && math.Abs(n) <= 1<<53 {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.FormatInt(int64(n), 10)}
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: strconv.FormatFloat(kind.NumberValue, 'g', -1, 64)}
	case *structpb.Value_StringValue:
		return scalar("!!str", kind.StringValue)
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
}
