package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// apiHint is the end of a message about a request that was not understood.
const apiHint = "/v1/openapi.json describes the API"

// NewDecoder implements runtime.Marshaler. The body is one JSON object, a manifest or nothing, and was limited and read before.
func (m *marshaler) NewDecoder(body io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(into any) error {
		text, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		if manifest, ok := into.(*[]byte); ok {
			*manifest = text // the service parses it
			return nil
		}
		if len(bytes.TrimSpace(text)) == 0 {
			return io.EOF // to the gateway this means that there is no body
		}
		var raw json.RawMessage
		if err := json.Unmarshal(text, &raw); err != nil {
			return notJSON(text, err)
		}
		if err := m.Unmarshal(text, into); err != nil {
			return parseError(err)
		}
		return nil
	})
}

func notJSON(text []byte, err error) error {
	at := len(text)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = int(syntax.Offset)
	}
	before := text[:max(0, min(at, len(text))-1)]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := len(before) - bytes.LastIndexByte(before, '\n')
	return fmt.Errorf("the body is not JSON: look at line %d, column %d; %s", line, column, apiHint)
}

// protojsonError matches protojson's position of an error. Its spaces differ between builds.
var protojsonError = regexp.MustCompile(`^proto:[\s\x{a0}]*(syntax error )?\(line (\d+):(\d+)\):[\s\x{a0}]*(.*)$`)

// parseError rewrites an error of protojson.
func parseError(err error) error {
	parts := protojsonError.FindStringSubmatch(err.Error())
	if parts == nil {
		return fmt.Errorf("the body is not understood: %s; %s", strings.TrimPrefix(err.Error(), "proto: "), apiHint)
	}
	return fmt.Errorf("the body is not understood at line %s, column %s: %s; %s", parts[2], parts[3], parts[4], apiHint)
}

// manifestTypes are the media types of manifests. The last one is curl's default.
var manifestTypes = []string{"", "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain", "application/x-www-form-urlencoded"}

// manifests refuses manifests of other media types. A manifest with a media type of JSON must be JSON.
func manifests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/v1/apps" {
			next.ServeHTTP(w, r)
			return
		}
		given, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		switch {
		case err != nil && r.Header.Get("Content-Type") != "", given != "application/json" && !slices.Contains(manifestTypes, given):
			refuseWith(w, http.StatusUnsupportedMediaType, status.Newf(codes.InvalidArgument, "a manifest is application/yaml or application/json, not %q; %s", r.Header.Get("Content-Type"), apiHint))
			return
		case given == "application/json":
			text, err := io.ReadAll(r.Body) // it was limited and read before
			var raw json.RawMessage
			if err == nil {
				if err = json.Unmarshal(text, &raw); err != nil {
					err = notJSON(text, err)
				}
			}
			if err != nil {
				Refuse(w, status.Error(codes.InvalidArgument, err.Error()))
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(text))
		}
		next.ServeHTTP(w, r)
	})
}

// queryParser names the parameter whose value is wrong.
type queryParser struct{ runtime.DefaultQueryParser }

// Parse implements runtime.QueryParameterParser. A switch needs no value: ?validate is ?validate=true.
func (p *queryParser) Parse(into proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	for name, given := range values {
		fields := into.ProtoReflect().Descriptor().Fields()
		field := fields.ByJSONName(name)
		if field == nil {
			field = fields.ByName(protoreflect.Name(name))
		}
		if field != nil && field.Kind() == protoreflect.BoolKind && slices.Equal(given, []string{""}) {
			given = []string{"true"}
		}
		if err := p.DefaultQueryParser.Parse(into, url.Values{name: given}, filter); err != nil {
			return fmt.Errorf("the parameter %s cannot be %q; %s", name, strings.Join(given, ","), apiHint)
		}
	}
	return nil
}

// KnownParameters refuses a request with an unknown parameter, so that a misspelt one is not ignored.
func KnownParameters(next http.Handler) http.Handler {
	operations := http.NewServeMux()
	takes := map[string][]string{}
	for pattern, request := range operationsWithQueries() {
		takes[pattern] = parameters(request, pattern)
		operations.Handle(pattern, next)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := operations.Handler(r); pattern != "" {
			for name := range r.URL.Query() {
				if !slices.Contains(takes[pattern], name) {
					Refuse(w, status.Errorf(codes.InvalidArgument, "%s has no parameter %q; %s", r.URL.Path, name, apiHint))
					return
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// operationsWithQueries maps the pattern of each request that may have a query to its message.
func operationsWithQueries() map[string]protoreflect.MessageDescriptor {
	operations := map[string]protoreflect.MessageDescriptor{}
	protoregistry.GlobalFiles.RangeFilesByPackage(apiPackage, func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				rule, _ := proto.GetExtension(methods.Get(j).Options(), annotations.E_Http).(*annotations.HttpRule)
				for verb, path := range map[string]string{http.MethodGet: rule.GetGet(), http.MethodDelete: rule.GetDelete(), http.MethodPost: rule.GetPost()} {
					// If the body is the whole request, the gateway does not read the query.
					if path != "" && rule.GetBody() != "*" {
						operations[verb+" "+strings.ReplaceAll(path, "=**}", "...}")] = methods.Get(j).Input()
					}
				}
			}
		}
		return true
	})
	return operations
}

const apiPackage = "mammoth.api.v1"

// parameters lists the names that a query may use: the fields that are neither in the path nor in a body, in both spellings.
func parameters(of protoreflect.MessageDescriptor, pattern string) []string {
	var names []string
	for i := range of.Fields().Len() {
		field := of.Fields().Get(i)
		if field.IsMap() || field.Kind() == protoreflect.BytesKind || field.Kind() == protoreflect.MessageKind && field.Message().ParentFile().Package() == apiPackage {
			continue // it cannot be in a query
		}
		if name := string(field.Name()); !strings.Contains(pattern, "{"+name+"}") && !strings.Contains(pattern, "{"+name+"...}") {
			names = append(names, name, field.JSONName())
		}
	}
	return names
}
