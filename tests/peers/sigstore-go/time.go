package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/rekor-tiles/v2/pkg/client/write"
	"github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	"github.com/sigstore/sigstore-go/pkg/root"
)

// timeEntries times what the library does for each signature it has recorded: one request until the answer is parsed.
func timeEntries(o options) error {
	config, err := root.NewSigningConfigFromPath(o.signingConfig)
	if err != nil {
		return fmt.Errorf("signing configuration: %w", err)
	}
	logs, err := logsOf(config)
	if err != nil {
		return err
	}
	writer, err := write.NewWriter(logs[0].URL)
	if err != nil {
		return err
	}
	for number := range o.entries {
		entry, err := newEntry(number)
		if err != nil {
			return err
		}
		begun := time.Now()
		if _, err := writer.Add(context.Background(), entry); err != nil {
			return err
		}
		fmt.Printf("%.3f\n", float64(time.Since(begun).Microseconds())/1000)
	}
	return nil
}

// newEntry signs something that nobody signed before, with a key that nobody has seen.
func newEntry(number int) (*protobuf.HashedRekordRequestV002, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(fmt.Append(nil, "entry ", number, time.Now()))
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return &protobuf.HashedRekordRequestV002{
		Digest: digest[:],
		Signature: &protobuf.Signature{
			Content: signature,
			Verifier: &protobuf.Verifier{
				KeyDetails: protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
				Verifier:   &protobuf.Verifier_PublicKey{PublicKey: &protobuf.PublicKey{RawBytes: public}},
			},
		},
	}, nil
}
