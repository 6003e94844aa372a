package distribution

import (
	"encoding/json"
	"net/http"

	"github.com/mammoth-os/mammoth/internal/wire"
)

// Error codes of the specification.
const (
	codeBlobUnknown         = "BLOB_UNKNOWN"
	codeDenied              = "DENIED"
	codeDigestInvalid       = "DIGEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestUnknown     = "MANIFEST_UNKNOWN"
	codeNameInvalid         = "NAME_INVALID"
	codeNameUnknown         = "NAME_UNKNOWN"
	codeUnavailable         = "UNAVAILABLE"
	codeUnknown             = "UNKNOWN"
	codeUnsupported         = "UNSUPPORTED"
	codeUploadInvalid       = "BLOB_UPLOAD_INVALID"
	codeUploadUnknown       = "BLOB_UPLOAD_UNKNOWN"
)

// fail answers with a store's error; missing and invalid are the codes for these classes.
func fail(w http.ResponseWriter, err error, missing, invalid string) {
	status := statusOf(err)
	code := codeUnknown
	switch status {
	case http.StatusNotFound:
		code = missing
	case http.StatusBadRequest:
		code = invalid
	case http.StatusRequestedRangeNotSatisfiable:
		code = codeUploadInvalid
	case http.StatusForbidden, http.StatusRequestEntityTooLarge:
		// After other codes clients retry for a minute before they show the message.
		code = codeDenied
	case http.StatusMethodNotAllowed:
		code = codeUnsupported
	case http.StatusServiceUnavailable:
		code = codeUnavailable
	}
	refuse(w, status, code, wire.Sentence(err))
}

// refuse answers with an error in the API's form.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type apiError struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct {
		Errors []apiError `json:"errors"`
	}{[]apiError{{code, message}}})
}
