// Command openapi finishes the description of the REST face that is generated from the .proto files: what it is called, which
// operations answer with a stream, and how the texts look that stand for numbers and durations. What the description allows
// is what the gateway can read.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

const path = "proto/mammoth/api/v1/openapi.swagger.json"

type object = map[string]any

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal("openapi: ", err)
	}
}

func run() error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var whole object
	if err := json.Unmarshal(raw, &whole); err != nil {
		return err
	}
	whole["info"] = object{
		"title": "Mammoth", "version": apiv1.OpenAPIVersion,
		"description": "What people, the command line and other programs ask of a zone. Each service is served as gRPC and as REST/JSON.",
	}
	definitions := whole["definitions"].(object)
	known := messages()
	for name, definition := range definitions {
		if message := known[name]; message != nil {
			define(definition.(object), message)
		}
	}
	for _, operations := range whole["paths"].(object) {
		for _, operation := range operations.(object) {
			finish(operation.(object), definitions)
		}
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(whole); err != nil {
		return err
	}
	return os.WriteFile(path, out.Bytes(), 0o644)
}

// messages are the messages of the API by what the generator calls them.
func messages() map[string]protoreflect.MessageDescriptor {
	known := map[string]protoreflect.MessageDescriptor{}
	var walk func(prefix string, list protoreflect.MessageDescriptors)
	walk = func(prefix string, list protoreflect.MessageDescriptors) {
		for i := range list.Len() {
			name := string(list.Get(i).Name())
			if prefix == "" {
				known["v1"+name] = list.Get(i)
			} else {
				// With the package before it where another message has the same name.
				known[prefix+name], known["v1"+prefix+name] = list.Get(i), list.Get(i)
			}
			walk(prefix+name, list.Get(i).Messages())
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(file.Path(), "mammoth/api/") || strings.HasPrefix(file.Path(), "mammoth/core/") {
			walk("", file.Messages())
			for i := range file.Services().Len() {
				service := file.Services().Get(i)
				for j := range service.Methods().Len() {
					method := service.Methods().Get(j)
					known[string(service.Name())+string(method.Name())+"Body"] = method.Input()
					known[string(service.Name())+"_"+string(method.Name())] = method.Input()
				}
			}
		}
		return true
	})
	return known
}

// define says of a message what its fields take. The gateway refuses what it does not know.
func define(definition object, message protoreflect.MessageDescriptor) {
	definition["additionalProperties"] = false
	properties, _ := definition["properties"].(object)
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if property, ok := properties[field.JSONName()].(object); ok {
			describe(property, field)
		}
	}
}

// describe says what one field takes.
func describe(property object, field protoreflect.FieldDescriptor) {
	kind := field.Kind()
	switch {
	case field.IsMap():
		property, field = property["additionalProperties"].(object), field.MapValue()
		kind = field.Kind()
	case field.IsList():
		property = property["items"].(object)
	}
	switch {
	case kind == protoreflect.Int64Kind || kind == protoreflect.Uint64Kind:
		property["pattern"] = "^-?[0-9]{1,18}$"
	case kind == protoreflect.Int32Kind:
		property["minimum"], property["maximum"] = -1<<31, 1<<31-1
	case kind == protoreflect.MessageKind && field.Message().FullName() == "google.protobuf.Duration":
		property["pattern"], property["example"] = `^-?[0-9]{1,9}(\.[0-9]{1,9})?s$`, "10s"
	case kind == protoreflect.MessageKind && field.Message().FullName() == "google.protobuf.ListValue":
		property["items"] = object{"type": "string"}
	}
	for key, value := range rules[string(field.FullName())] {
		property[key] = value
	}
}

// rules are what a spec may be, where a schema can say it.
var rules = map[string]object{
	"mammoth.api.v1.AppSpec.name":                 {"pattern": "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"},
	"mammoth.api.v1.AppSpec.queue":                {"pattern": "^([A-Za-z][A-Za-z0-9_-]{0,39})?$"},
	"mammoth.api.v1.AppSpec.priority":             {"minimum": -1_000_000, "maximum": 1_000_000},
	"mammoth.api.v1.RoleSpec.instances":           {"minimum": 0, "maximum": spec.MaxInstances},
	"mammoth.api.v1.ScheduleEntry.instances":      {"minimum": 0, "maximum": spec.MaxInstances},
	"mammoth.api.v1.ScaleAppRequest.instances":    {"minimum": 0, "maximum": spec.MaxInstances},
	"mammoth.api.v1.PromoteAppRequest.percent":    {"minimum": 0, "maximum": 100},
	"mammoth.api.v1.RollbackAppRequest.version":   {"minimum": 0, "maximum": 1<<31 - 1},
	"mammoth.api.v1.UpdatePolicy.maxErrorPercent": {"minimum": 0, "maximum": 100},
	"mammoth.core.v1.Port.name":                   {"pattern": "^[a-z][a-z0-9-]{0,14}$"},
	"mammoth.core.v1.Port.container_port":         {"minimum": 0, "maximum": 65535},
}

// manifest is what a manifest has in any case. Its keys are described in docs/manifest.md, and an unknown one is refused with the nearest
// that there is.
var manifest = object{
	"type": "object", "description": "The app's manifest. docs/manifest.md describes its keys.", "required": []string{"name"},
	"properties":           object{"name": object{"type": "string", "pattern": rules["mammoth.api.v1.AppSpec.name"]["pattern"]}},
	"additionalProperties": true,
}

// finish says of an operation what its parameters take, and of a stream that it is one.
func finish(operation object, definitions object) {
	id := operation["operationId"].(string)
	request := messages()[id]
	parameters, _ := operation["parameters"].([]any)
	parameters = slices.DeleteFunc(parameters, func(each any) bool {
		// What a query of the generator's would spell field by field, nothing takes.
		return strings.ContainsAny(each.(object)["name"].(string), ".[")
	})
	if len(parameters) > 0 {
		operation["parameters"] = parameters
	}
	for _, each := range parameters {
		parameter := each.(object)
		if parameter["in"] == "body" && parameter["name"] == "manifest" {
			operation["consumes"] = []string{"application/yaml", "application/json"}
			parameter["schema"] = manifest
		}
		if request == nil || parameter["in"] != "query" {
			continue
		}
		if field := request.Fields().ByJSONName(parameter["name"].(string)); field != nil {
			describe(parameter, field)
		}
	}
	responses := operation["responses"].(object)
	answer := responses["200"].(object)
	schema, _ := answer["schema"].(object)
	title, _ := schema["title"].(string)
	if !strings.HasPrefix(title, "Stream result of ") {
		return
	}
	result := schema["properties"].(object)["result"]
	answer["schema"] = result
	answer["description"] = "A stream: one JSON object a line, each as soon as there is one."
	operation["x-stream"] = true
	text, _ := operation["summary"].(string)
	operation["summary"] = strings.TrimSpace(fmt.Sprintf("%s A stream.", text))
}
