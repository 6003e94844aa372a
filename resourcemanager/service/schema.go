package service

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// schemaURL is the base URL of a schema while it is compiled. It is not loaded.
const schemaURL = "framework:///options"

// schema is the schema of the options of a framework's apps, or of its companion; compiled is nil if there are no options.
type schema struct {
	// reader is what reads the options, as in "the framework ring", framework is the name of its package, and at is where they are in an
	// app or a role.
	reader, framework string
	at                []string
	compiled          *jsonschema.Schema
}

// schemaOf compiles the JSON Schema of the options of a framework's apps. An error is of type spec.Faults, with the place in the package.
func schemaOf(p *apiv1.FrameworkPackage) (schema, error) {
	read := schema{reader: "the framework " + p.GetName(), framework: p.GetName(), at: []string{"options"}}
	return read, read.compile(p.GetOptions(), "options")
}

// companionSchemaOf compiles the JSON Schema of a companion's options as schemaOf does.
func companionSchemaOf(p *apiv1.FrameworkPackage) (schema, error) {
	read := schema{reader: "the companion " + p.GetName(), framework: p.GetName(), at: []string{"companion", p.GetName()}}
	return read, read.compile(p.GetCompanion().GetOptions(), "companion", "options")
}

// compile compiles the source of a schema, of the draft 2020-12 unless it names another; at is its place in the package.
func (s *schema) compile(source *structpb.Struct, at ...string) error {
	if source == nil {
		return nil
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(nowhere{})
	err := compiler.AddResource(schemaURL, source.AsMap())
	if err == nil {
		s.compiled, err = compiler.Compile(schemaURL)
	}
	if err != nil {
		return badSchema(err, at)
	}
	return nil
}

// nowhere loads nothing: a schema must not make the ResourceManager read files or connect to other machines.
type nowhere struct{}

// Load implements jsonschema.URLLoader.
func (nowhere) Load(string) (any, error) {
	return nil, errors.New("nothing outside of the package is read")
}

func badSchema(err error, at []string) error {
	fault := spec.Fault{Key: slices.Clone(at)}
	var refused *jsonschema.SchemaValidationError
	var invalid *jsonschema.ValidationError
	var elsewhere *jsonschema.LoadURLError
	switch {
	case errors.As(err, &refused) && errors.As(refused.Err, &invalid):
		first := leaf(invalid)
		fault.Key = append(fault.Key, first.InstanceLocation...)
		fault.Sentence = fmt.Sprintf("%s is not what JSON Schema has there: %s", strings.Join(fault.Key, "."), reading(first))
	case errors.As(err, &elsewhere):
		fault.Sentence = fmt.Sprintf("the schema of the options refers to %q, and nothing outside of the package is read; write it into the schema, under $defs", elsewhere.URL)
	default:
		fault.Sentence = strings.Join(at, ".") + " is no JSON Schema: " + strings.ReplaceAll(err.Error(), schemaURL, "")
	}
	return spec.Faults{fault}
}

// check checks options.
func (s schema) check(options *structpb.Struct) spec.Faults {
	switch {
	case s.compiled == nil && options == nil:
		return nil
	case s.compiled == nil:
		return spec.Faults{{Key: s.at, Sentence: s.reader + " reads no options; remove them"}}
	}
	given := options.AsMap()
	if given == nil {
		given = map[string]any{}
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(s.compiled.Validate(given), &invalid) {
		return nil
	}
	first := leaf(invalid)
	key := append(slices.Clone(s.at), first.InstanceLocation...)
	return spec.Faults{{Key: key, Sentence: fmt.Sprintf("%s is not what %s takes: %s; \"mammoth framework show %s\" has its schema",
		strings.Join(key, "."), s.reader, reading(first), s.framework)}}
}

// leaf is the first root cause of a validation error, by its place in the options.
func leaf(from *jsonschema.ValidationError) *jsonschema.ValidationError {
	for len(from.Causes) > 0 {
		from = slices.MinFunc(from.Causes, func(a, b *jsonschema.ValidationError) int {
			return cmp.Compare(strings.Join(a.InstanceLocation, "/"), strings.Join(b.InstanceLocation, "/"))
		})
	}
	return from
}

func reading(mistake *jsonschema.ValidationError) string {
	return mistake.ErrorKind.LocalizedString(message.NewPrinter(language.English))
}
