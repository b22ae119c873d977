"""The peers' side of tests/benchmarks/beside, which starts it: imaging.py TASK SCRATCH IMAGE...

TASK is normalise, mask, pipeline, n4, metrics, nyul, white_stripe, kde or fcm. The first line on standard output
names the task's ways; then, for every line of standard input that names one, it is run once: {"ms", "peak_mib",
"result"}. SCRATCH holds the head, or the masks, that imaging_bench has left there. A library is loaded when a way of it is first asked for.
"""
import functools
import importlib.metadata
import json
import pathlib
import resource
import sys
import time

import numpy as np

THREADS = 2
SHAPE = (256, 256, 176)


def sitk():
    import SimpleITK
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(THREADS)
    return SimpleITK


def torch():
    import torch as library
    library.set_num_threads(THREADS)
    return library


def array_of(out):
    return out if isinstance(out, np.ndarray) else sitk().GetArrayFromImage(out)


class Normalise:
    """Masked z-score in memory. The mask is x > mean(x), unless the way says otherwise."""

    def __init__(self, scratch, images):
        self.x = np.fromfile(scratch / "head.f32", np.float32).reshape(SHAPE)
        self.mask = np.fromfile(scratch / "mask.u8", np.uint8).reshape(SHAPE)

    def result(self, out):
        values = array_of(out).reshape(SHAPE)[self.mask != 0].astype(np.float64)
        return {"mean_in_mask": round(float(values.mean()), 6), "deviation_in_mask": round(float(values.std()), 6)}

    def torchio(self):
        import torchio
        normalise = torchio.ZNormalization(masking_method=torchio.ZNormalization.mean)
        library = torch()
        return (lambda: torchio.Subject(mri=torchio.ScalarImage(tensor=library.from_numpy(self.x.copy())[None])),
                lambda subject: normalise(subject).mri.data[0].numpy())

    def monai(self):
        import monai.transforms
        normalise = monai.transforms.NormalizeIntensityd(keys="mri", nonzero=True)
        library = torch()
        return (lambda: library.from_numpy(self.x.copy())[None],
                lambda tensor: normalise({"mri": tensor})["mri"][0].numpy())

    def intensity_normalization(self):
        from intensity_normalization import ZScoreNormalizer
        from intensity_normalization.adapters.images import create_image
        return self.x.copy, lambda x: ZScoreNormalizer()(create_image(x), create_image(self.mask)).get_data()

    def intensity_normalization_without_mask(self):
        from intensity_normalization import ZScoreNormalizer
        from intensity_normalization.adapters.images import create_image
        return self.x.copy, lambda x: ZScoreNormalizer()(create_image(x)).get_data()

    def numpy_plain(self):
        def call(x):
            mask = x > x.mean(dtype=np.float64)
            values = x[mask]
            mean, deviation = values.mean(dtype=np.float64), values.std(dtype=np.float64)
            return np.where(mask, (x - np.float32(mean)) / np.float32(deviation), np.float32(0))
        return self.x.copy, call

    def numpy_slabs(self):
        """In slabs that stay in the cache: what care can get from numpy."""
        def call(x):
            threshold, total, square, count = x.mean(dtype=np.float64), 0.0, 0.0, 0
            shift = float(x[tuple(n // 2 for n in x.shape)])
            for slab in x:
                values = (slab[slab > threshold] - np.float32(shift)).astype(np.float64)
                total, square, count = total + values.sum(), square + np.dot(values, values), count + values.size
            mean = total / count
            scale = np.float32(1 / np.sqrt(square / count - mean**2))
            out, offset = np.empty_like(x), np.float32(shift + mean)
            for slab, result in zip(x, out):
                np.subtract(slab, offset, out=result)
                result *= scale
                result *= slab > threshold
            return out
        return self.x.copy, call

    def numpy_slabs_given(self):
        """The same, in place, over a given mask, and what is outside is kept: no more than our own side does."""
        inside = self.mask.view(bool)

        def call(x):
            total, square, count = 0.0, 0.0, 0
            shift = float(x[tuple(n // 2 for n in x.shape)])
            for slab, chosen in zip(x, inside):
                values = (slab[chosen] - np.float32(shift)).astype(np.float64)
                total, square, count = total + values.sum(), square + np.dot(values, values), count + values.size
            mean = total / count
            scale, offset = np.float32(1 / np.sqrt(square / count - mean**2)), np.float32(shift + mean)
            for slab in x:
                slab -= offset
                slab *= scale
            return x
        return self.x.copy, call

    def torch_plain(self):
        library = torch()

        def call(x):
            mask = x > x.mean()
            values = x[mask].double()
            return library.where(mask, (x - values.mean().float()) / values.std(correction=0).float(), 0)
        return lambda: library.from_numpy(self.x.copy()), lambda x: call(x).numpy()

    def simpleitk(self):
        itk = sitk()
        head = itk.GetImageFromArray(self.mask)

        def call(image):
            statistics = itk.LabelStatisticsImageFilter()
            statistics.Execute(image, head)
            return itk.Mask((image - statistics.GetMean(1)) / statistics.GetSigma(1), head)
        return lambda: itk.GetImageFromArray(self.x), call

    ways = {
        "torchio ZNormalization(mean)": torchio,
        "monai NormalizeIntensityd(nonzero)": monai,
        "intensity-normalization ZScore(mask)": intensity_normalization,
        "intensity-normalization ZScore(no mask: x > 0)": intensity_normalization_without_mask,
        "numpy": numpy_plain,
        "numpy, slab by slab": numpy_slabs,
        "numpy, slab by slab, in place, mask given": numpy_slabs_given,
        "torch": torch_plain,
        "SimpleITK, mask given": simpleitk,
    }


class HeadMask(Normalise):
    """Otsu's threshold, the largest component, its holes filled."""

    def result(self, out):
        return {"voxels": int(np.count_nonzero(array_of(out)))}

    def simpleitk(self):
        itk = sitk()

        def call(image):
            mask = itk.OtsuThreshold(image, 0, 1, 128)
            mask = itk.RelabelComponent(itk.ConnectedComponent(mask)) == 1
            return itk.BinaryFillhole(mask)
        return lambda: itk.GetImageFromArray(self.x), call

    def scipy(self):
        import scipy.ndimage

        def call(x):
            counts, edges = np.histogram(x, 256)
            below, moment = np.cumsum(counts * 1.0), np.cumsum(counts * np.arange(256.0))
            with np.errstate(divide="ignore", invalid="ignore"):
                between = (moment[-1] * below - moment * below[-1])**2 / (below * (below[-1] - below))
            labels, _ = scipy.ndimage.label(x > edges[np.nanargmax(between) + 1])
            largest = np.argmax(np.bincount(labels.ravel())[1:]) + 1
            return scipy.ndimage.binary_fill_holes(labels == largest)
        return self.x.copy, call

    ways = {"SimpleITK": simpleitk, "scipy + numpy": scipy}


class Pipeline:
    """Reading, orienting to LPS, resampling to 1 mm, z-score: milliseconds a case."""

    def __init__(self, scratch, images):
        self.images = images

    def result(self, out):
        return {"voxels": int(np.prod(out.shape))}

    def monai(self, dtype=np.float64):
        import monai.transforms as mt
        torch()
        chain = mt.Compose([
            mt.LoadImaged("mri", reader="NibabelReader"), mt.EnsureChannelFirstd("mri"),
            mt.Orientationd("mri", axcodes="LPS"), mt.Spacingd("mri", pixdim=(1.0, 1.0, 1.0), mode="bilinear", dtype=dtype),
            mt.NormalizeIntensityd("mri", nonzero=True)])
        return lambda path: chain({"mri": path})["mri"]

    def monai_float32(self):
        return self.monai(np.float32)

    def torchio(self):
        import torchio
        torch()
        chain = torchio.Compose([torchio.ToOrientation("LPS"), torchio.Resample(1.0),
                                 torchio.ZNormalization(masking_method=torchio.ZNormalization.mean)])
        return lambda path: chain(torchio.ScalarImage(path)).data

    def simpleitk(self):
        itk = sitk()

        def call(path):
            image = itk.DICOMOrient(itk.ReadImage(str(path), itk.sitkFloat32), "LPS")
            size = [round(n * s) for n, s in zip(image.GetSize(), image.GetSpacing())]
            image = itk.Resample(image, size, itk.Transform(), itk.sitkLinear, image.GetOrigin(), (1.0, 1.0, 1.0),
                                 image.GetDirection(), 0.0, itk.sitkFloat32)
            data = itk.GetArrayViewFromImage(image)
            values = data[data != 0]
            return np.where(data != 0, (data - values.mean()) / values.std(), 0)
        return call

    ways = {"monai": monai, "monai, resampling in float32": monai_float32, "torchio": torchio,
            "SimpleITK + numpy": simpleitk}


class N4:
    """N4 with a mask by Otsu, fitted on every fourth voxel, the field applied to all."""

    def __init__(self, scratch, images):
        self.image = images[0]

    def result(self, out):
        return {"corrected_mean": round(float(out.mean()), 4)}

    def simpleitk(self):
        itk = sitk()

        def call(image):
            mask = itk.OtsuThreshold(image, 0, 1, 200)
            small, small_mask = (itk.Shrink(part, [4] * 3) for part in (image, mask))
            corrector = itk.N4BiasFieldCorrectionImageFilter()
            corrector.Execute(small, small_mask)
            return itk.GetArrayFromImage(image / itk.Exp(corrector.GetLogBiasFieldAsImage(image)))
        return lambda: itk.ReadImage(str(self.image), itk.sitkFloat32), call

    ways = {"SimpleITK": simpleitk}


class Normaliser(Normalise):
    """One of intensity-normalization's, fitted and applied under the mask that our own side has."""

    def __init__(self, method, scratch, images):
        super().__init__(scratch, images)
        self.method = method

    def result(self, out):
        return {"mean_in_mask": round(float(out[self.mask != 0].astype(np.float64).mean()), 6)}

    def intensity_normalization(self):
        import intensity_normalization as package
        made = {"nyul": package.NyulNormalizer, "white_stripe": package.WhiteStripeNormalizer,
                "kde": package.KDENormalizer, "fcm": package.FCMNormalizer}[self.method]
        mask = package.create_image(self.mask)
        if self.method != "nyul":
            return (lambda: package.create_image(self.x.copy()),
                    lambda image: made().fit(image, mask).transform(image).get_data())
        # Its scale is that of this head, so that, as on our own side, a run is landmarks and map.
        nyul = made().fit_population([package.create_image(self.x)], [mask])
        return (lambda: package.create_image(self.x.copy()),
                lambda image: nyul.transform(image, mask).get_data())

    ways = {"intensity-normalization": intensity_normalization}


class Metrics:
    """HD95, and the share of the surfaces within 1 mm where a library has it, of two pairs of masks."""

    def __init__(self, scratch, images):
        self.scratch = scratch

    def masks(self, name):
        return [np.fromfile(self.scratch / f"{name}_{side}.u8", np.uint8).reshape(181, 217, 181).astype(bool)
                for side in ("reference", "predicted")]

    def result(self, out):
        return {key: round(float(value), 6) for key, value in zip(("hd95_mm", "nsd_1mm"), np.ravel(out))}

    def deepmind(self, name):
        import surface_distance
        masks = self.masks(name)

        def call(_):
            distances = surface_distance.compute_surface_distances(*masks, (1.0, 1.0, 1.0))
            return [surface_distance.compute_robust_hausdorff(distances, 95),
                    surface_distance.compute_surface_dice_at_tolerance(distances, 1.0)]
        return tuple, call

    def monai(self, name, nsd):
        import monai.metrics
        library = torch()
        # Its masks have a channel per class, the background first, and the predicted one comes first.
        masks = [library.from_numpy(np.stack([~mask, mask]))[None] for mask in reversed(self.masks(name))]
        spacing = {"spacing": (1.0, 1.0, 1.0)}
        hd95 = lambda: monai.metrics.compute_hausdorff_distance(*masks, percentile=95, **spacing)
        return tuple, lambda _: ([hd95(), monai.metrics.compute_surface_dice(*masks, [1.0], **spacing)]
                                 if nsd else [hd95()])

    def medpy(self, name):
        import medpy.metric
        reference, predicted = self.masks(name)
        return tuple, lambda _: [medpy.metric.binary.hd95(predicted, reference, voxelspacing=(1.0, 1.0, 1.0))]

    ways = {f"{name}: {title}": functools.partial(way, name=name)
            for title, way in (("DeepMind, HD95 and NSD", deepmind),
                               ("MONAI, HD95", functools.partial(monai, nsd=False)),
                               ("MONAI, HD95 and NSD", functools.partial(monai, nsd=True)), ("MedPy, HD95", medpy))
            for name in ("brain", "hippocampus")}


TASKS = {"metrics": Metrics, "normalise": Normalise, "mask": HeadMask, "pipeline": Pipeline, "n4": N4,
         **{method: functools.partial(Normaliser, method) for method in ("nyul", "white_stripe", "kde", "fcm")}}


def timed(call, *arguments):
    start = time.perf_counter()
    out = call(*arguments)
    return (time.perf_counter() - start) * 1e3, out


def main():
    task = TASKS[sys.argv[1]](pathlib.Path(sys.argv[2]), [pathlib.Path(image) for image in sys.argv[3:]])
    print(json.dumps({"ways": list(task.ways)}), flush=True)
    made = {}
    for name in (line.rstrip("\n") for line in sys.stdin):
        if name not in made:
            made[name] = task.ways[name](task)
        if isinstance(task, Pipeline):
            runs = [timed(made[name], path) for path in task.images]
            milliseconds, out = sum(run[0] for run in runs) / len(runs), runs[-1][1]
        else:
            prepare, call = made[name]
            milliseconds, out = timed(call, prepare())
        packages = {"intensity_normalization": "intensity-normalization",
                    "surface_distance": "surface-distance-based-measures"}
        versions = {packages.get(package, package): importlib.metadata.version(packages.get(package, package))
                    for package in ("numpy", "scipy", "torch", "monai", "torchio", "intensity_normalization", "SimpleITK",
                                    "surface_distance", "medpy")
                    if package in sys.modules}
        print(json.dumps({"ms": milliseconds, "result": task.result(out), "versions": versions,
                          "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}), flush=True)


main()
