/// DICOM files in the compressed transfer syntaxes, which only GDCM writes.
#pragma once

#include <filesystem>

#include <gdcmImageChangeTransferSyntax.h>
#include <gdcmImageReader.h>
#include <gdcmImageWriter.h>

namespace isoscan {

/// Rewrites a file in another transfer syntax; false when GDCM cannot.
inline bool Rewrite(const std::filesystem::path& path, gdcm::TransferSyntax::TSType syntax) {
  gdcm::ImageReader reader;
  reader.SetFileName(path.c_str());
  if (!reader.Read()) return false;
  gdcm::ImageChangeTransferSyntax change;
  change.SetTransferSyntax(syntax);
  change.SetInput(reader.GetImage());
  if (!change.Change()) return false;
  gdcm::ImageWriter writer;
  writer.SetFile(reader.GetFile());
  writer.SetImage(change.GetOutput());
  writer.SetFileName(path.c_str());
  return writer.Write();
}

}  // namespace isoscan
