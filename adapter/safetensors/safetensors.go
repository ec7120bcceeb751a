// Package safetensors reads and writes the safetensors container: an eight-byte length, a JSON
// header, and the bytes of the tensors without holes.
//
// Start with [ReadHeader], which returns the tensors of a file in the order of their data.
// [NewHeader] is its inverse. [Index] maps each key of a checkpoint to the shard that holds it. The
// package never reads tensor data and does not know the meaning of a tensor.
//
// # Validation
//
// A header is refused where the reference implementation refuses it (huggingface/safetensors,
// src/tensor.rs). These are refused too:
//
//   - a name that is empty, repeated or longer than 4096 bytes
//   - a shape of more than 64 dimensions
//   - more than 2^20 tensors
//   - bytes before the opening brace
//
// An accepted header is sound. Its offsets tile the data from the first byte to the end of the
// file, and each size agrees with dtype and shape. Unknown fields are skipped.
//
// No number in a file decides an allocation before the file is known to have that many bytes.
//
// # Errors
//
// Errors name the tensor, the value found and the value expected. The caller adds the name of the
// file.
//
// Functions keep no state and are safe for concurrent use.
package safetensors
