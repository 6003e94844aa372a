package service

import (
	"context"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
	"github.com/mammoth-os/mammoth/resourcemanager/images"
)

func structure(t *testing.T, text string) *structpb.Struct {
	t.Helper()
	if text == "" {
		return nil
	}
	s := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, text string) schema {
	t.Helper()
	read, err := schemaOf(&apiv1.FrameworkPackage{Name: "ring", Options: structure(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	return read
}

func TestOptionsAreWhatTheSchemaHas(t *testing.T) {
	const schema = `{"type": "object", "additionalProperties": false, "required": ["workers"], "properties": {
		"workers": {"type": "integer", "minimum": 1}, "command": {"type": "array", "items": {"$ref": "#/$defs/word"}}},
		"$defs": {"word": {"type": "string"}}}`
	for _, c := range []struct{ schema, options, key, part string }{
		{schema, `{"workers": 3, "command": ["a"]}`, "", ""},
		{schema, `{"workers": 2.5}`, "options.workers", "options.workers is not what the framework ring takes: got number, want integer; "},
		{schema, `{"workers": 0}`, "options.workers", "minimum: got 0, want 1"},
		{schema, `{"workers": 1, "command": ["a", 7]}`, "options.command.1", "got number, want string"},
		{schema, `{"workers": 1, "wrokers": 2}`, "options", "additional properties 'wrokers' not allowed"},
		{schema, ``, "options", "missing property 'workers'"},
		{`{}`, ``, "", ""},
		{`{}`, `{"any": {"thing": [null, true]}}`, "", ""},
		{``, ``, "", ""},
		{``, `{"workers": 1}`, "options", "the framework ring reads no options; remove them"},
	} {
		faults := read(t, c.schema).check(structure(t, c.options))
		key, sentence := "", ""
		if len(faults) > 0 {
			key, sentence = strings.Join(faults[0].Key, "."), faults[0].Sentence
		}
		if key != c.key || !strings.Contains(sentence, c.part) || (sentence == "") != (c.part == "") {
			t.Errorf("%s by %s: %q at %q", c.options, c.schema, sentence, key)
		}
	}
}

func TestASchemaStandsAlone(t *testing.T) {
	const outside = `and nothing outside of the package is read; write it into the schema, under $defs`
	for schema, want := range map[string]string{
		`{"type": "text"}`: "options.type is not what JSON Schema has there: ",
		`{"properties": {"workers": {"minimum": "one"}}}`: "options.properties.workers.minimum is not what JSON Schema has there: got string, want number",
		`{"$ref": "https://example.test/a.json"}`:         `the schema of the options refers to "https://example.test/a.json", ` + outside,
		`{"$ref": "file:///etc/hostname"}`:                `the schema of the options refers to "file:///etc/hostname", ` + outside,
		`{"$ref": "other.json"}`:                          `refers to "framework:///other.json", ` + outside,
		`{"$schema": "https://example.test/meta.json"}`:   `refers to "https://example.test/meta.json", ` + outside,
		`{"$ref": "#/$defs/none"}`:                        "options is no JSON Schema: ",
		`{"pattern": "("}`:                                "options",
	} {
		_, err := schemaOf(&apiv1.FrameworkPackage{Name: "ring", Options: structure(t, schema)})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s is refused with %v", schema, err)
		}
	}
	// A schema that refers to itself for ever is one that nothing fits.
	if faults := read(t, `{"$ref": "#"}`).check(nil); len(faults) == 0 {
		t.Error("a schema without an end takes something")
	}
}

// packageLoop is the loop of a zone with one app.
type packageLoop struct {
	Apps
	installed *apiv1.FrameworkPackage
}

func (l *packageLoop) ListApps(request *apiv1.ListAppsRequest) (AppPage, error) {
	if request.GetPageToken() == "" {
		return AppPage{Next: "the second page"}, nil
	}
	spec := &apiv1.AppSpec{Name: "numbers", Framework: "ring", Options: &structpb.Struct{Fields: map[string]*structpb.Value{"workers": structpb.NewNumberValue(3)}}}
	return AppPage{Apps: []*AppView{{App: &apiv1.App{Name: "numbers", Spec: spec}}}}, nil
}

func (l *packageLoop) InstallFramework(_ context.Context, request *apiv1.InstallFrameworkRequest) (*apiv1.Framework, error) {
	l.installed = request.GetPackage()
	return &apiv1.Framework{Package: request.GetPackage()}, nil
}

func (l *packageLoop) Frameworks(context.Context) (*apiv1.ListFrameworksResponse, error) {
	return nil, nil
}

func (l *packageLoop) Framework(context.Context, string) (*apiv1.Framework, error) {
	return &apiv1.Framework{Package: &apiv1.FrameworkPackage{Master: &apiv1.MasterKind{}}}, nil
}

func (l *packageLoop) RemoveFramework(context.Context, string) (*apiv1.Framework, error) {
	return nil, nil
}

// packageImages has one image.
type packageImages struct{ Images }

func (packageImages) Resolve(_ context.Context, name string) (string, images.Config, error) {
	if name != "ring:1" {
		return "", images.Config{}, errdefs.ErrNotFound
	}
	return "sha256:0123", images.Config{}, nil
}

func TestAPackageIsCheckedBeforeItIsInstalled(t *testing.T) {
	loop := &packageLoop{}
	s := &frameworks{loop: loop, apps: loop, images: packageImages{}}
	refused := func(request *apiv1.InstallFrameworkRequest, code codes.Code, part string) {
		t.Helper()
		_, err := s.InstallFramework(t.Context(), request)
		if status.Code(err) != code || !strings.Contains(wire.Sentence(wire.Error(err)), part) {
			t.Errorf("%v: %v", request, err)
		}
	}
	of := func(change func(*apiv1.FrameworkPackage)) *apiv1.InstallFrameworkRequest {
		p := &apiv1.FrameworkPackage{Name: "ring", Master: &apiv1.MasterKind{Command: []string{"ring"}}, Options: structure(t, `{}`)}
		change(p)
		return &apiv1.InstallFrameworkRequest{Package: p}
	}
	refused(&apiv1.InstallFrameworkRequest{}, codes.InvalidArgument, "there is nothing to install")
	both := of(func(*apiv1.FrameworkPackage) {})
	both.BuiltIn = "dynamicdeploy"
	refused(both, codes.InvalidArgument, "not both")
	refused(of(func(p *apiv1.FrameworkPackage) { p.Name = "Ring" }), codes.InvalidArgument, `framework Ring: "Ring" cannot be the name of a framework`)
	refused(of(func(p *apiv1.FrameworkPackage) { p.Options = structure(t, `{"type": 7}`) }), codes.InvalidArgument, "framework ring: options.type is not what JSON Schema has there")
	refused(of(func(p *apiv1.FrameworkPackage) { p.Options = nil }), codes.FailedPrecondition, "the app numbers would not fit the package any more: the framework ring reads no options")
	image := of(func(p *apiv1.FrameworkPackage) { p.Master.Image = "ring:1" })
	refused(image, codes.PermissionDenied, "a master that is an image has its node's own network, which the operator of this zone does not allow")
	s.hostNetwork = true
	refused(of(func(p *apiv1.FrameworkPackage) { p.Master.Image = "ring:2" }), codes.NotFound, "")
	refused(of(func(p *apiv1.FrameworkPackage) { p.Master.Image, p.Master.Command = "ring:1", nil }), codes.InvalidArgument, `image "ring:1" has no command; set one in the package`)
	if loop.installed != nil {
		t.Errorf("what is refused was installed: %v", loop.installed)
	}
	if _, err := s.InstallFramework(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	if m := loop.installed.GetMaster(); m.GetImageDigest() != "sha256:0123" || m.GetResources().GetMemoryBytes() != 64<<20 {
		t.Errorf("what is installed is %v", m)
	}
}
